"""The compositions API: doors to `jobs`, `publishing` and `recipes`."""

from __future__ import annotations

from typing import Any

from django.db.models import Prefetch, QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import generics, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from compose import (
    candidates,
    examples,
    jobs,
    naming,
    predictions,
    publishing,
    recipes,
    removing,
    serializers,
    tryouts,
)
from compose.changed_since import with_modules
from compose.engine.types import ExportForm
from compose.errors import BadSetting, NoSuchComposition
from compose.models import Candidate, Composition, LogLine, Trial
from registry.api_parts import IDEMPOTENCY_KEY, only, person_of
from registry.authentication import SignedIn
from registry.idempotency import idempotent
from registry.models import BaseModel, Task
from registry.rights import Person, writable_namespace
from registry.search import tasks_shown_to
from web.api_schema import refusals
from web.errors import DomainError, NotFound

TAG = ["compositions"]


class CompositionList(generics.ListAPIView):
    """Your compositions, and asking for a new one."""

    permission_classes = [SignedIn]
    serializer_class = serializers.CompositionRowSerializer
    keyset_order = ("-created_at", "-id")

    def get_queryset(self) -> QuerySet[Composition]:
        mine = _as_told_to(self.request.user).filter(owner_id=self.request.user.pk)
        return mine.defer("examples", "test_examples", "predictions", "result")

    @extend_schema(
        operation_id="compositions_list",
        tags=TAG,
        summary="List your compositions, newest first",
        responses={
            200: serializers.CompositionRowSerializer(many=True),
            **refusals(400, 401, 403),
        },
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        only(request, "cursor", "limit")
        return super().get(request, *args, **kwargs)

    @extend_schema(
        operation_id="compositions_create",
        tags=TAG,
        summary="Compose for a new task",
        parameters=[IDEMPOTENCY_KEY],
        request=serializers.NewCompositionSerializer,
        responses={
            201: serializers.CompositionSerializer,
            200: OpenApiResponse(
                serializers.DryRunSerializer, description="With `dry_run`: what would happen."
            ),
            **refusals(400, 401, 403, 404, 409, 415, 422),
        },
    )
    @idempotent
    def post(self, request: Request) -> Response:
        only(request)
        given = serializers.NewCompositionSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        if given.validated_data["dry_run"]:
            return Response(_dry_run(given.validated_data, request))
        wanted = _wanted(given.validated_data, request)
        composition = jobs.request_composition(wanted)
        answer = _answer(request, composition, status.HTTP_201_CREATED)
        answer["Location"] = request.build_absolute_uri(f"{request.path}{composition.pk}/")
        return answer


class CompositionDetail(APIView):
    @extend_schema(
        operation_id="compositions_read",
        tags=TAG,
        summary="A composition and what it found",
        responses={200: serializers.CompositionSerializer, **refusals(400, 401, 403, 404)},
    )
    def get(self, request: Request, id: str) -> Response:
        only(request)
        # Asked for again and again while it runs.
        large = ("examples", "test_examples", "predictions", "result")
        return _answer(request, jobs.visible_composition(request.user, id, without=large))

    @extend_schema(
        operation_id="compositions_remove",
        tags=TAG,
        summary="Remove one that has ended and of which nothing is published, with all that it found",
        responses={204: OpenApiResponse(description="Removed."), **refusals(400, 401, 403, 404, 409)},
    )
    def delete(self, request: Request, id: str) -> Response:
        only(request)
        removing.remove(jobs.visible_composition(request.user, id), request.user)
        return Response(status=status.HTTP_204_NO_CONTENT)


class CompositionTexts(APIView):
    @extend_schema(
        operation_id="compositions_remove_texts",
        tags=TAG,
        summary="Remove the texts of one that has ended: examples, test rows, predictions, log, the reason of a failure; the figures stay",
        responses={204: OpenApiResponse(description="Removed."), **refusals(400, 401, 403, 404, 409)},
    )
    def delete(self, request: Request, id: str) -> Response:
        only(request)
        removing.remove_texts(jobs.visible_composition(request.user, id), request.user)
        return Response(status=status.HTTP_204_NO_CONTENT)


class CompositionCancel(APIView):
    @extend_schema(
        operation_id="compositions_cancel",
        tags=TAG,
        summary="Cancel: at once if it waits, within one evaluation if it runs",
        request=None,
        responses={200: serializers.CompositionSerializer, **refusals(400, 401, 403, 404, 409)},
    )
    def post(self, request: Request, id: str) -> Response:
        only(request)
        composition = jobs.visible_composition(request.user, id)
        jobs.cancel(composition, request.user)
        return _answer(request, composition)


class CompositionStop(APIView):
    @extend_schema(
        operation_id="compositions_stop",
        tags=TAG,
        summary="Stop the search and keep the best mix so far",
        request=None,
        responses={200: serializers.CompositionSerializer, **refusals(400, 401, 403, 404, 409)},
    )
    def post(self, request: Request, id: str) -> Response:
        only(request)
        composition = jobs.visible_composition(request.user, id)
        jobs.stop(composition, request.user)
        return _answer(request, composition)


class CompositionPublish(APIView):
    @extend_schema(
        operation_id="compositions_publish",
        tags=TAG,
        summary="Publish the composed adapter, once",
        parameters=[IDEMPOTENCY_KEY],
        request=serializers.CompositionPublishSerializer,
        responses={
            201: serializers.CompositionSerializer,
            **refusals(400, 401, 403, 404, 409, 415, 422),
        },
    )
    @idempotent
    def post(self, request: Request, id: str) -> Response:
        only(request)
        composition = jobs.visible_composition(request.user, id)
        jobs.require_owner(composition, request.user)
        given = serializers.CompositionPublishSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        wanted = dict(given.validated_data)
        namespace = writable_namespace(request.user, wanted.pop("namespace", request.user.get_username()))
        publishing.publish_composition(composition, actor=person_of(request), namespace=namespace, **wanted)
        published = jobs.visible_composition(request.user, id)
        return _answer(request, published, status.HTTP_201_CREATED)


class CompositionTrials(generics.ListAPIView):
    """Every evaluated vector of mixing weights."""

    serializer_class = serializers.TrialSerializer
    keyset_order = ("number",)

    def get_queryset(self) -> QuerySet[Trial]:
        if getattr(self, "swagger_fake_view", False):
            return Trial.objects.none()
        return jobs.visible_composition(self.request.user, self.kwargs["id"]).trials.all()

    @extend_schema(
        operation_id="compositions_trials",
        tags=TAG,
        summary="The trials of a composition, in order",
        responses={200: serializers.TrialSerializer(many=True), **refusals(400, 401, 403, 404)},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        only(request, "cursor", "limit")
        return super().get(request, *args, **kwargs)


class CompositionLog(generics.ListAPIView):
    """What happened to a composition, in words."""

    serializer_class = serializers.LogLineSerializer
    keyset_order = ("-id",)

    def get_queryset(self) -> QuerySet[LogLine]:
        if getattr(self, "swagger_fake_view", False):
            return LogLine.objects.none()
        composition = jobs.visible_composition(self.request.user, self.kwargs["id"])
        jobs.require_owner(composition, self.request.user)
        return LogLine.objects.filter(composition=composition)

    @extend_schema(
        operation_id="compositions_log",
        tags=TAG,
        summary="What happened to a composition, the newest first; for the owner only",
        responses={200: serializers.LogLineSerializer(many=True), **refusals(400, 401, 403, 404)},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        only(request, "cursor", "limit")
        return super().get(request, *args, **kwargs)


class CompositionPredictions(APIView):
    @extend_schema(
        operation_id="compositions_predictions",
        tags=TAG,
        summary="What each method wrote for the scored rows; for the owner only",
        responses={200: serializers.PredictionsSerializer, **refusals(400, 401, 403, 404)},
    )
    def get(self, request: Request, id: str) -> Response:
        only(request)
        composition = jobs.visible_composition(request.user, id)
        jobs.require_owner(composition, request.user)
        return Response({"results": predictions.valued_predictions(composition)})


class CompositionTry(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        operation_id="compositions_try",
        tags=TAG,
        summary="Ask a free worker what the composed adapter writes for a text",
        request=serializers.NewTryoutSerializer,
        responses={202: serializers.TryoutSerializer, **refusals(400, 401, 403, 404, 409, 415)},
    )
    def post(self, request: Request, id: str) -> Response:
        only(request)
        composition = jobs.visible_composition(request.user, id)
        given = serializers.NewTryoutSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        asked = tryouts.ask(composition, person_of(request), given.validated_data["text"])
        answer = Response(serializers.TryoutSerializer(asked).data, status=status.HTTP_202_ACCEPTED)
        answer["Location"] = request.build_absolute_uri(f"{request.path}{asked.pk}/")
        return answer


class CompositionTryout(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        operation_id="compositions_tryout",
        tags=TAG,
        summary="A text you gave a composed adapter, with the answer once there is one",
        responses={200: serializers.TryoutSerializer, **refusals(400, 401, 403, 404)},
    )
    def get(self, request: Request, id: str, tryout: str) -> Response:
        only(request)
        composition = jobs.visible_composition(request.user, id)
        found = tryouts.seen_by(request.user, composition, tryout)
        return Response(serializers.TryoutSerializer(found).data)


class CompositionShare(APIView):
    @extend_schema(
        operation_id="compositions_share",
        tags=TAG,
        summary="Make a link for people whom you choose; the one that is there stays",
        request=None,
        responses={200: serializers.SharedSerializer, **refusals(400, 401, 403, 404)},
    )
    def post(self, request: Request, id: str) -> Response:
        only(request)
        composition = jobs.visible_composition(request.user, id)
        jobs.share(composition, request.user)
        link = f"{composition.get_absolute_url()}?key={composition.share_key}"
        return Response({"url": request.build_absolute_uri(link)})

    @extend_schema(
        operation_id="compositions_unshare",
        tags=TAG,
        summary="Take the link back: it leads nowhere from now on",
        responses={204: OpenApiResponse(description="Taken back."), **refusals(400, 401, 403, 404)},
    )
    def delete(self, request: Request, id: str) -> Response:
        only(request)
        jobs.unshare(jobs.visible_composition(request.user, id), request.user)
        return Response(status=status.HTTP_204_NO_CONTENT)


class CompositionRecipe(APIView):
    @extend_schema(
        operation_id="compositions_recipe",
        tags=TAG,
        summary="The recipe that makes the same adapter again, byte for byte",
        responses={200: OpenApiTypes.OBJECT, **refusals(400, 401, 403, 404, 409)},
    )
    def get(self, request: Request, id: str) -> Response:
        only(request)
        return Response(recipes.recipe_for(jobs.visible_composition(request.user, id), request.user))


def _dry_run(given: dict[str, Any], request: Request) -> dict[str, Any]:
    try:
        answer = jobs.dry_run(_wanted(given, request))
    except DomainError as error:
        answer = jobs.refused(error)
    return dict(serializers.DryRunSerializer(answer).data)


def _wanted(given: dict[str, Any], request: Request) -> jobs.CompositionRequest:
    """Raises DomainError."""
    task = _task(given.get("task"), request.user)
    base_model = _base_model(given.get("base_model"), task)
    few_shot, test = given["examples"], given["test_examples"]
    picked = given["candidates"]
    # Text of another format than its rows is the reader's to refuse; rows need none.
    text_format = given["format"]
    return jobs.CompositionRequest(
        owner=person_of(request),
        base_model=base_model,
        task=task,
        examples=examples.parse_examples(few_shot, text_format) if few_shot or not task else [],
        test_examples=examples.parse_examples(test, text_format, field="test_examples") if test else [],
        candidates=None if picked is None else candidates.pick(picked, base_model, request.user),
        pinned=given["pinned"],
        excluded=given["excluded"],
        notice_origin=request.build_absolute_uri("/")[:-1] if given["email_when_done"] else "",
        method=given["method"],
        budget=given["budget"],
        seed=given["seed"],
        time_limit_s=given["time_limit_s"],
        metric=given["metric"],
        export=ExportForm(rank=given["export_rank"], dtype=given["export_dtype"]),
        title=given["title"],
    )


def _task(slug: str | None, person: Person) -> Task | None:
    if slug is None:
        return None
    task = tasks_shown_to(person).select_related("base_model").filter(slug=slug).first()
    if task is None:
        raise NotFound(f"There is no task {slug[:100]!r} here.", fields={"task": ["Unknown."]})
    return task


def _base_model(name: str | None, task: Task | None) -> BaseModel:
    if name is None:
        if task is None or task.base_model is None:
            raise BadSetting("base_model", "Say which base model the modules are to be composed for.")
        return task.base_model
    base_model = BaseModel.objects.named(name)
    if base_model is None:
        message = (
            f"The base model {name[:100]!r} is not known here. GET /api/v1/base-models/ lists those that are."
        )
        raise BadSetting("base_model", message)
    return base_model


def _as_told_to(person: Person) -> QuerySet[Composition]:
    """Compositions with the adapter and the task that this person may be told of."""
    found = Composition.objects.select_related("base_model", "owner")
    return found.prefetch_related(naming.published(person), naming.told_tasks(person))


def _answer(request: Request, composition: Composition, code: int = status.HTTP_200_OK) -> Response:
    """A composition as this person may see it."""
    modules = Prefetch("candidates", with_modules(Candidate.objects.all()))
    found = _as_told_to(request.user).prefetch_related("scores", modules)
    row = found.defer("predictions").filter(pk=composition.pk).first()
    if row is None:  # it was removed at this moment
        raise NoSuchComposition
    context = {
        "request": request,
        "named": naming.named_in(composition, request.user),
        "title": naming.title_of(composition, request.user),
    }
    return Response(serializers.CompositionSerializer(row, context=context).data, status=code)
