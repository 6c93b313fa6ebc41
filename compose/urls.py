from django.urls import path

from compose import account_views, fit_views, lineage_views, metrics, result_views, task_views, views

urlpatterns = [
    path("", views.home, name="home"),
    path("modules/fit", fit_views.fit_page, name="fit"),
    path("modules/fit/<slug:audition_id>", fit_views.audition_page, name="audition"),
    path("modules/fit/<slug:audition_id>/forget", fit_views.audition_forget, name="audition_forget"),
    path("compose", views.compose, name="compose"),
    path("compose/check", views.check_examples, name="compose_check"),
    path("compose/candidates", views.pick_candidates, name="compose_candidates"),
    path("compositions", views.compositions, name="compositions"),
    path("compositions/<slug:composition_id>", views.composition, name="composition"),
    path("compositions/<slug:composition_id>/progress", views.progress, name="composition_progress"),
    path("compositions/<slug:composition_id>/stop", views.stop, name="composition_stop"),
    path("compositions/<slug:composition_id>/cancel", views.cancel, name="composition_cancel"),
    path("compositions/<slug:composition_id>/publish", views.publish, name="composition_publish"),
    path("compositions/<slug:composition_id>/share", result_views.share, name="composition_share"),
    path("compositions/<slug:composition_id>/unshare", result_views.unshare, name="composition_unshare"),
    path("compositions/<slug:composition_id>/try", result_views.try_out, name="composition_try"),
    path(
        "compositions/<slug:composition_id>/try/<slug:tryout_id>",
        result_views.tryout,
        name="composition_tryout",
    ),
    path("compositions/<slug:composition_id>/recipe.json", views.recipe, name="composition_recipe"),
    path("compositions/<slug:composition_id>/trials.json", views.trials, name="composition_trials"),
    path(
        "compositions/<slug:composition_id>/predictions.csv",
        views.predictions,
        name="composition_predictions",
    ),
    path("settings/data.json", account_views.own_data_file, name="own_data"),
    path("settings/delete", account_views.account_delete, name="account_delete"),
    path("tasks", task_views.tasks, name="tasks"),
    path("tasks/<slug:slug>", task_views.task, name="task"),
    path("tasks/<slug:slug>/leaderboard.csv", task_views.leaderboard_csv, name="task_leaderboard_csv"),
    path("tasks/<slug:slug>/embed", task_views.leaderboard_embed, name="task_leaderboard_embed"),
    path("<str:namespace>/<str:name>/lineage", lineage_views.lineage_page, name="adapter_lineage"),
    path("status", views.status, name="status"),
    path("metrics", metrics.metrics, name="metrics"),
]
