from django.urls import path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from web import views

urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", SpectacularSwaggerView.as_view(url_name="schema"), name="api_docs"),
    path("health", views.health, name="health"),
]
