from django.urls import path
from drf_spectacular.views import SpectacularAPIView

from web import views

urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", views.api_reference, name="api_docs"),
    path("health", views.health, name="health"),
]
