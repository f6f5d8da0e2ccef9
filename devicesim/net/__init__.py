"""The device's wire: TLS with SNI as a first-class variable, MQTT on top, and the one table of failures."""
