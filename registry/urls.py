from django.contrib.sitemaps.views import index, sitemap
from django.urls import path
from django.views.decorators.http import require_safe

from registry.sitemaps import SITEMAPS
from registry.views import (
    adapters,
    base_models,
    browsing,
    cards,
    feeds,
    following,
    moderation,
    organisations,
    settings,
    uploading,
    versions,
    webhooks,
)

_ADAPTER = "<str:namespace>/<str:name>"

urlpatterns = [
    path(
        "sitemap.xml",
        require_safe(index),
        {"sitemaps": SITEMAPS, "sitemap_url_name": "sitemap_part"},
        name="sitemap",
    ),
    path("sitemap-<slug:section>.xml", require_safe(sitemap), {"sitemaps": SITEMAPS}, name="sitemap_part"),
    path("modules", browsing.modules, name="modules"),
    path("modules/feed.atom", feeds.modules_feed, name="modules_feed"),
    path("settings/following", following.followed, name="following"),
    path("settings/following/mail", following.mail_news, name="mail_news"),
    path("settings/following/no-mail/<str:key>", following.mail_no_news, name="mail_no_news"),
    path("settings/liked", following.liked, name="liked"),
    path("modules/saved", browsing.save_search, name="save_search"),
    path("modules/saved/<int:search_id>/remove", browsing.remove_saved_search, name="remove_saved_search"),
    path("upload", uploading.upload, name="upload"),
    path("upload/check", uploading.upload_check, name="upload_check"),
    path("base-models", base_models.base_models, name="base_models"),
    path("base-models/new", base_models.base_model_new, name="base_model_new"),
    path("base-models/<path:name>/download.zip", base_models.base_model_archive, name="base_model_archive"),
    path("base-models/<path:name>/download/<path:path>", base_models.base_model_file, name="base_model_file"),
    path("base-models/<path:name>", base_models.base_model, name="base_model"),
    path("settings", settings.profile, name="profile"),
    path("settings/tokens", settings.access_tokens, name="tokens"),
    path("settings/tokens/<int:token_id>/revoke", settings.token_revoke, name="token_revoke"),
    path("settings/webhooks", webhooks.webhooks, name="webhooks"),
    path("settings/webhooks/<int:webhook_id>/remove", webhooks.webhook_remove, name="webhook_remove"),
    path("settings/webhooks/<int:webhook_id>/on", webhooks.webhook_switch_on, name="webhook_switch_on"),
    path("settings/webhooks/<int:webhook_id>/test", webhooks.webhook_test, name="webhook_test"),
    path("settings/deliveries/<int:delivery_id>/replay", webhooks.delivery_replay, name="delivery_replay"),
    path("settings/organizations", organisations.my_organisations, name="my_organisations"),
    path(
        "settings/organizations/<str:name>/answer", organisations.invitation_answer, name="invitation_answer"
    ),
    path(
        "settings/organizations/<str:name>/leave", organisations.organisation_leave, name="organisation_leave"
    ),
    path("organizations/new", organisations.organisation_new, name="organisation_new"),
    path("<str:namespace>/settings", organisations.organisation_settings, name="organisation_settings"),
    path("<str:namespace>/settings/invite", organisations.organisation_invite, name="organisation_invite"),
    path(
        "<str:namespace>/settings/members/<str:username>",
        organisations.organisation_member,
        name="organisation_member",
    ),
    path(
        "<str:namespace>/settings/invitations/<str:username>",
        organisations.invitation_withdraw,
        name="invitation_withdraw",
    ),
    path("<str:namespace>/settings/delete", organisations.organisation_delete, name="organisation_delete"),
    path("<str:namespace>/feed.atom", feeds.namespace_feed, name="namespace_feed"),
    path("<str:namespace>/follow", following.follow_namespace, name="namespace_follow"),
    path("moderation", moderation.moderation_queue, name="moderation"),
    path("moderation/people/<str:namespace>/blank", moderation.profile_blank, name="profile_blank"),
    path("tasks/<slug:slug>/report", moderation.task_report, name="task_report"),
    path("tasks/<slug:slug>/moderate", moderation.task_moderate, name="task_moderate"),
    path(f"{_ADAPTER}/report", moderation.adapter_report, name="adapter_report"),
    path(f"{_ADAPTER}/moderate", moderation.adapter_moderate, name="adapter_moderate"),
    # Last: these take whatever is left.
    path(f"{_ADAPTER}/settings", adapters.adapter_settings, name="adapter_settings"),
    path(f"{_ADAPTER}/card", cards.adapter_card, name="adapter_card"),
    path(f"{_ADAPTER}/move", adapters.adapter_move, name="adapter_move"),
    path(f"{_ADAPTER}/delete", adapters.adapter_delete, name="adapter_delete"),
    path(f"{_ADAPTER}/versions", versions.versions, name="adapter_versions"),
    path(f"{_ADAPTER}/compare", versions.compare, name="adapter_compare"),
    path(f"{_ADAPTER}/feed.atom", feeds.adapter_feed, name="adapter_feed"),
    path(f"{_ADAPTER}/like", following.like_adapter, name="adapter_like"),
    path(f"{_ADAPTER}/follow", following.follow_adapter, name="adapter_follow"),
    path(f"{_ADAPTER}/revisions/<str:commit>", adapters.adapter, name="adapter_revision"),
    path(f"{_ADAPTER}/download/<str:commit>.zip", adapters.adapter_archive, name="adapter_archive"),
    path(f"{_ADAPTER}/download/<str:commit>/<path:path>", adapters.adapter_file, name="adapter_file"),
    path(_ADAPTER, adapters.adapter, name="adapter"),
    path("<str:namespace>", browsing.namespace, name="namespace"),
]
