from django.urls import path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView

from web import views

urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", views.api_reference, name="api_docs"),
    path("docs", RedirectView.as_view(pattern_name="api_docs")),  # as somebody types it
    path("health", views.health, name="health"),
]
