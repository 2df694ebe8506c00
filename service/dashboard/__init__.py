"""The dashboard: pages rendered on the server, charts drawn in the browser, nothing from elsewhere."""

from service.dashboard.pages import router

__all__ = ["router"]
