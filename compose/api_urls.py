from django.urls import path

from compose import api, fit_api, lineage_api, status_api, task_views, tasks_api

urlpatterns = [
    path("status/", status_api.SiteStatus.as_view(), name="api_status"),
    path("tasks/", tasks_api.TaskList.as_view(), name="api_tasks"),
    path("tasks/<slug:slug>/", tasks_api.TaskDetail.as_view(), name="api_task"),
    path("tasks/<slug:slug>/revisions/", tasks_api.TaskRevisions.as_view(), name="api_task_revisions"),
    path("tasks/<str:slug>/leaderboard/", task_views.LeaderboardView.as_view(), name="api_leaderboard"),
    path("adapters/fit/", fit_api.FitView.as_view(), name="api_fit"),
    path(
        "adapters/<str:namespace>/<str:name>/lineage/",
        lineage_api.LineageView.as_view(),
        name="api_lineage",
    ),
    path("auditions/", fit_api.AuditionList.as_view(), name="api_auditions"),
    path("auditions/<str:id>/", fit_api.AuditionDetail.as_view(), name="api_audition"),
    path("compositions/", api.CompositionList.as_view(), name="api_compositions"),
    path("compositions/<str:id>/", api.CompositionDetail.as_view(), name="api_composition"),
    path("compositions/<str:id>/texts/", api.CompositionTexts.as_view(), name="api_composition_texts"),
    path("compositions/<str:id>/cancel/", api.CompositionCancel.as_view(), name="api_composition_cancel"),
    path("compositions/<str:id>/stop/", api.CompositionStop.as_view(), name="api_composition_stop"),
    path("compositions/<str:id>/publish/", api.CompositionPublish.as_view(), name="api_composition_publish"),
    path("compositions/<str:id>/trials/", api.CompositionTrials.as_view(), name="api_composition_trials"),
    path("compositions/<str:id>/log/", api.CompositionLog.as_view(), name="api_composition_log"),
    path(
        "compositions/<str:id>/predictions/",
        api.CompositionPredictions.as_view(),
        name="api_composition_predictions",
    ),
    path("compositions/<str:id>/try/", api.CompositionTry.as_view(), name="api_composition_try"),
    path(
        "compositions/<str:id>/try/<str:tryout>/",
        api.CompositionTryout.as_view(),
        name="api_composition_tryout",
    ),
    path("compositions/<str:id>/share/", api.CompositionShare.as_view(), name="api_composition_share"),
    path("compositions/<str:id>/recipe/", api.CompositionRecipe.as_view(), name="api_composition_recipe"),
]
