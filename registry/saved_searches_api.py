"""REST over saved searches, and over the mail that tells what is new in them: doors to `saved_searches` and `news_mail`."""

from __future__ import annotations

from django.db.models import QuerySet
from django.urls import reverse
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry import news_mail, saved_searches
from registry.api_parts import only, person_of
from registry.authentication import SignedIn
from registry.models import SavedSearch
from registry.serializers import StrictSerializer
from web.api_schema import refusals

TAG = ["saved-searches"]


class SavedSearchSerializer(serializers.ModelSerializer[SavedSearch]):
    parameters = serializers.CharField(
        read_only=True, help_text="As GET adapters/ takes them behind the question mark."
    )
    url = serializers.SerializerMethodField(help_text="The page with what it finds now.")

    class Meta:
        model = SavedSearch
        fields = ["id", "name", "parameters", "created_at", "url"]
        read_only_fields = fields

    def get_url(self, saved: SavedSearch) -> str:
        return self.context["request"].build_absolute_uri(f"{reverse('modules')}?{saved.parameters}")


class NewSavedSearchSerializer(StrictSerializer):
    name = serializers.CharField(help_text="Yours alone; once among your searches.")
    parameters = serializers.CharField(
        allow_blank=True,
        help_text="As GET adapters/ takes them, such as `q=colour&composable=yes`; empty for all adapters. The place "
        "in the list is left out.",
    )


class NewsMailSerializer(serializers.Serializer):
    wanted = serializers.BooleanField(help_text="Whether you asked for these mails.")
    address = serializers.CharField(help_text="Where they go; empty for an account without one.")
    confirmed = serializers.BooleanField(help_text="Whether you confirmed it: before that no mail goes out.")


class SavedSearchList(generics.ListAPIView[SavedSearch]):
    permission_classes = [SignedIn]
    serializer_class = SavedSearchSerializer
    keyset_order = ("-created_at", "-id")
    queryset = SavedSearch.objects.none()

    def get_queryset(self) -> QuerySet[SavedSearch]:
        only(self.request, "cursor", "limit")
        return SavedSearch.objects.filter(user=person_of(self.request))

    @extend_schema(
        tags=TAG,
        operation_id="saved_searches_list",
        responses={200: SavedSearchSerializer(many=True), **refusals(400, 401, 403)},
    )
    def get(self, request: Request, *args: object, **kwargs: object) -> Response:
        """Your saved searches, the newest first."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        tags=TAG,
        operation_id="saved_searches_create",
        request=NewSavedSearchSerializer,
        responses={
            200: OpenApiResponse(SavedSearchSerializer, description="It was there under this name."),
            201: SavedSearchSerializer,
            **refusals(400, 401, 403, 409, 415),
        },
    )
    def post(self, request: Request) -> Response:
        """Keep a search under a name."""
        only(request)
        form = NewSavedSearchSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        saved, is_new = saved_searches.save(user=person_of(request), **form.validated_data)
        content = SavedSearchSerializer(saved, context=self.get_serializer_context()).data
        answer = Response(content, status=201 if is_new else 200)
        answer["Location"] = request.build_absolute_uri(f"{request.path}{saved.pk}/")
        return answer


class SavedSearchDetail(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        tags=TAG,
        operation_id="saved_searches_read",
        responses={200: SavedSearchSerializer, **refusals(400, 401, 403, 404)},
    )
    def get(self, request: Request, id: int) -> Response:
        """One saved search of yours."""
        only(request)
        saved = saved_searches.saved_search_of(person_of(request), id)
        return Response(SavedSearchSerializer(saved, context={"request": request}).data)

    @extend_schema(
        tags=TAG,
        operation_id="saved_searches_delete",
        responses={204: OpenApiResponse(description="Forgotten."), **refusals(400, 401, 403, 404)},
    )
    def delete(self, request: Request, id: int) -> Response:
        """Forget a saved search."""
        only(request)
        saved_searches.remove(user=person_of(request), pk=id)
        return Response(status=204)


class NewsMail(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        tags=TAG,
        operation_id="news_mail_read",
        responses={200: NewsMailSerializer, **refusals(400, 401, 403)},
    )
    def get(self, request: Request) -> Response:
        """Whether you get a mail of what is new of what you follow and in your saved searches."""
        only(request)
        person = person_of(request)
        content = {
            "wanted": news_mail.is_wanted(person),
            "address": person.email,
            "confirmed": news_mail.has_confirmed_address(person),
        }
        return Response(NewsMailSerializer(content).data)

    @extend_schema(
        tags=TAG,
        operation_id="news_mail_begin",
        request=None,
        responses={204: OpenApiResponse(description="It comes from now on."), **refusals(400, 401, 403)},
    )
    def put(self, request: Request) -> Response:
        """Ask for that mail: once a day at most, and none where nothing is new."""
        only(request)
        news_mail.begin(person_of(request), origin=request.build_absolute_uri("/")[:-1])
        return Response(status=204)

    @extend_schema(
        tags=TAG,
        operation_id="news_mail_end",
        responses={204: OpenApiResponse(description="It comes no more."), **refusals(400, 401, 403)},
    )
    def delete(self, request: Request) -> Response:
        """Get no more of these mails."""
        only(request)
        news_mail.end(person_of(request))
        return Response(status=204)
