"""Addresses of imports from and pushes to other Hubs, pages and REST, and of finding what a file is."""

from django.urls import path

from registry import hub_jobs_api as api
from registry.views import hashes, other_hubs

urlpatterns = [
    path("api/v1/imports/", api.ImportList.as_view(), name="api_imports"),
    path("api/v1/imports/<str:id>/", api.ImportDetail.as_view(), name="api_import"),
    path("api/v1/imports/<str:id>/items/", api.ImportItemList.as_view(), name="api_import_items"),
    path("api/v1/imports/<str:id>/cancel/", api.ImportCancel.as_view(), name="api_import_cancel"),
    path("api/v1/pushes/", api.PushList.as_view(), name="api_pushes"),
    path("api/v1/pushes/<str:id>/", api.PushDetail.as_view(), name="api_push"),
    path("api/v1/pushes/<str:id>/cancel/", api.PushCancel.as_view(), name="api_push_cancel"),
    path("hashes", hashes.hashes, name="hashes"),
    path("import", other_hubs.import_new, name="import"),
    path("imports", other_hubs.imports, name="imports"),
    path("imports/<str:id>", other_hubs.import_detail, name="import_detail"),
    path("imports/<str:id>/progress", other_hubs.import_progress, name="import_progress"),
    path("imports/<str:id>/cancel", other_hubs.import_cancel, name="import_cancel"),
    path("pushes", other_hubs.pushes, name="pushes"),
    path("pushes/<str:id>", other_hubs.push_detail, name="push_detail"),
    path("pushes/<str:id>/progress", other_hubs.push_progress, name="push_progress"),
    path("pushes/<str:id>/cancel", other_hubs.push_cancel, name="push_cancel"),
    path("<str:namespace>/<str:name>/push", other_hubs.push_new, name="push"),
]
