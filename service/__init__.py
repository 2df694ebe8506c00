"""The controller's side: database, API, dispatch, export, dashboard, command line. No torch, no ray."""
