from django.urls import path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView

from web import views

urlpatterns = [
    # As somebody types who looks for the API.
    path("", RedirectView.as_view(pattern_name="api_docs")),
    path("v1", RedirectView.as_view(pattern_name="api_docs")),
    path("v1/", RedirectView.as_view(pattern_name="api_docs")),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", views.api_reference, name="api_docs"),
    path("docs", RedirectView.as_view(pattern_name="api_docs")),
    path("health", views.health, name="health"),
]
