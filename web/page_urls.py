"""Pages that belong to no subject."""

from django.urls import path

from web import views

urlpatterns = [
    path("docs", views.docs, name="docs"),
    path("docs/<slug:page>", views.docs, name="docs_page"),
    path("robots.txt", views.robots, name="robots"),
    path("favicon.ico", views.favicon, name="favicon"),
]
