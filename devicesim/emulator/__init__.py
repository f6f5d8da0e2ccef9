"""An IoT Core of several accounts on this machine; state and decisions are pure, gateway, httpd and service wait."""
