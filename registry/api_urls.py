from django.urls import path, re_path

from registry import (
    api,
    base_models_api,
    following_api,
    organisations_api,
    quotas_api,
    refs_api,
    reports_api,
    saved_searches_api,
    tokens_api,
    webhooks_api,
    whoami_api,
)

urlpatterns = [
    path("adapters/", api.AdapterList.as_view(), name="api_adapters"),
    path("adapters/facets/", api.AdapterFacets.as_view(), name="api_facets"),
    path("adapters/validate/", api.AdapterValidate.as_view(), name="api_validate"),
    path("adapters/<str:namespace>/<str:name>/", api.AdapterDetail.as_view(), name="api_adapter"),
    path("adapters/<str:namespace>/<str:name>/move/", api.AdapterMove.as_view(), name="api_move"),
    path("adapters/<str:namespace>/<str:name>/revisions/", api.RevisionList.as_view(), name="api_revisions"),
    path(
        "adapters/<str:namespace>/<str:name>/revisions/<path:revision>/",
        api.RevisionDetail.as_view(),
        name="api_revision",
    ),
    path("adapters/<str:namespace>/<str:name>/refs/", refs_api.RefList.as_view(), name="api_refs"),
    path(
        "adapters/<str:namespace>/<str:name>/tags/<path:tag>/", refs_api.AdapterTag.as_view(), name="api_tag"
    ),
    path("adapters/<str:namespace>/<str:name>/files/", api.FileList.as_view(), name="api_files"),
    path(
        "adapters/<str:namespace>/<str:name>/files/<path:path>", api.FileDownload.as_view(), name="api_file"
    ),
    path("adapters/<str:namespace>/<str:name>/archive", api.Archive.as_view(), name="api_archive"),
    path(
        "adapters/<str:namespace>/<str:name>/report/",
        reports_api.AdapterReport.as_view(),
        name="api_report_adapter",
    ),
    path("tasks/<slug:slug>/report/", reports_api.TaskReport.as_view(), name="api_report_task"),
    path("hashes/<str:sha256>/", api.HashMatches.as_view(), name="api_hashes"),
    path("base-models/", base_models_api.BaseModelList.as_view(), name="api_base_models"),
    re_path(
        r"^base-models/(?P<name>[^/]+(?:/[^/]+)?)/files/(?P<path>.+)$",
        base_models_api.BaseModelFileDownload.as_view(),
        name="api_base_model_file",
    ),
    path("base-models/<path:name>/", base_models_api.BaseModelDetail.as_view(), name="api_base_model"),
    path("namespaces/<str:name>/quota/", quotas_api.NamespaceQuota.as_view(), name="api_quota"),
    path("organizations/", organisations_api.OrganisationList.as_view(), name="api_organisations"),
    path(
        "organizations/<str:name>/", organisations_api.OrganisationDetail.as_view(), name="api_organisation"
    ),
    path("organizations/<str:name>/members/", organisations_api.MemberList.as_view(), name="api_members"),
    path(
        "organizations/<str:name>/members/<str:username>/",
        organisations_api.MemberDetail.as_view(),
        name="api_member",
    ),
    path("invitations/", organisations_api.InvitationList.as_view(), name="api_invitations"),
    path("invitations/<str:name>/", organisations_api.InvitationDetail.as_view(), name="api_invitation"),
    path("following/", following_api.FollowingList.as_view(), name="api_following"),
    path("following/<str:namespace>/", following_api.FollowNamespace.as_view(), name="api_follow_namespace"),
    path(
        "following/<str:namespace>/<str:name>/",
        following_api.FollowAdapter.as_view(),
        name="api_follow_adapter",
    ),
    path("saved-searches/", saved_searches_api.SavedSearchList.as_view(), name="api_saved_searches"),
    path("saved-searches/<int:id>/", saved_searches_api.SavedSearchDetail.as_view(), name="api_saved_search"),
    path("news-mail/", saved_searches_api.NewsMail.as_view(), name="api_news_mail"),
    path("webhooks/", webhooks_api.WebhookList.as_view(), name="api_webhooks"),
    path("webhooks/<int:id>/", webhooks_api.WebhookDetail.as_view(), name="api_webhook"),
    path("webhooks/<int:id>/on/", webhooks_api.WebhookSwitchOn.as_view(), name="api_webhook_on"),
    path("webhooks/<int:id>/test/", webhooks_api.WebhookTest.as_view(), name="api_webhook_test"),
    path("webhooks/<int:id>/deliveries/", webhooks_api.DeliveryList.as_view(), name="api_deliveries"),
    path("deliveries/<int:id>/replay/", webhooks_api.DeliveryReplay.as_view(), name="api_replay"),
    path("tokens/", tokens_api.TokenList.as_view(), name="api_tokens"),
    path("tokens/<int:id>/", tokens_api.TokenDetail.as_view(), name="api_token"),
    path("whoami/", whoami_api.WhoAmI.as_view(), name="api_whoami"),
]
