from django.contrib import admin
from django.urls import include, path

from registry.views import settings, sign_in

urlpatterns = [
    # Before allauth's own, under their names.
    path("accounts/email/", settings.email_addresses, name="account_email"),
    path("accounts/oidc/<str:provider_id>/login/", sign_in.login_elsewhere, name="openid_connect_login"),
    path(
        "accounts/oidc/<str:provider_id>/login/callback/",
        sign_in.back_from_elsewhere,
        name="openid_connect_callback",
    ),
    path("accounts/", include("allauth.urls")),
    path("admin/", admin.site.urls),
    path("api/", include("web.urls")),
    path("api/v1/", include("compose.api_urls")),
    path("api/v1/", include("registry.api_urls")),
    path("", include("web.page_urls")),
    path("", include("compose.urls")),
    path("", include("registry.hub_jobs_urls")),
    path("", include("registry.hub.urls")),
    # Last: its /{namespace}/{name} takes everything that is left.
    path("", include("registry.urls")),
]
handler404 = "web.views.page_not_found"
handler500 = "web.views.server_error"
handler403 = "web.views.permission_denied"
handler400 = "web.views.bad_request"
handler429 = "web.views.too_many_requests"  # asked for by allauth
