"""What the appliance talks about: frozen data, no behaviour but properties."""
