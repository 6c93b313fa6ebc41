"""Pages that belong to no subject."""

from django.urls import path
from django.views.generic import RedirectView

from web import views

urlpatterns = [
    path("api", RedirectView.as_view(pattern_name="api_docs")),
    path("docs", views.docs, name="docs"),
    path("docs/<slug:page>", views.docs, name="docs_page"),
    path("robots.txt", views.robots, name="robots"),
    path("favicon.ico", views.favicon, name="favicon"),
]
