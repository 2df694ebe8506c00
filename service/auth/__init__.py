"""Who may talk to the service: Host, Origin and token checks, and the headers that bind the browser."""
