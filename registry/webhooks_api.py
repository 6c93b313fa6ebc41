"""REST over webhooks: doors to `webhooks`."""

from __future__ import annotations

from datetime import datetime

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry import webhooks
from registry.api_parts import only, person_of
from registry.authentication import SignedIn
from registry.models import Delivery, Webhook
from registry.serializers import StrictSerializer
from web.api_schema import refusals
from web.errors import NotFound

TAG = ["webhooks"]


class WebhookSerializer(serializers.ModelSerializer[Webhook]):
    events = serializers.ListField(child=serializers.CharField(), read_only=True)
    active = serializers.BooleanField(
        source="is_active", read_only=True, help_text="false: switched off after too many failures."
    )
    failures = serializers.IntegerField(read_only=True, help_text="Messages in a row that were never taken.")

    class Meta:
        model = Webhook
        fields = ["id", "url", "events", "active", "failures", "created_at"]
        read_only_fields = fields


class CreatedWebhookSerializer(WebhookSerializer):
    secret = serializers.CharField(read_only=True, help_text="Signs what is sent; it is told only now.")

    class Meta(WebhookSerializer.Meta):
        fields = [*WebhookSerializer.Meta.fields, "secret"]
        read_only_fields = fields


class NewWebhookSerializer(StrictSerializer):
    url = serializers.CharField()
    events = serializers.ListField(
        child=serializers.CharField(),
        default=list(webhooks.EVENTS),
        help_text="All unless given: "
        + " ".join(f"{name}: {what}." for name, what in webhooks.EVENTS.items()),
    )


class DeliverySerializer(serializers.ModelSerializer[Delivery]):
    payload = serializers.DictField(read_only=True, help_text="The body as it is sent.")
    attempts = serializers.IntegerField(read_only=True)
    answered = serializers.IntegerField(
        read_only=True, allow_null=True, help_text="HTTP status of the last answer."
    )
    next_try_at = serializers.SerializerMethodField(
        help_text="null once it was delivered or given up, and while its webhook is switched off."
    )

    class Meta:
        model = Delivery
        fields = [
            "id", "event", "key", "status", "attempts", "answered", "problem", "next_try_at", "payload", "created_at",
            "delivered_at",
        ]  # fmt: skip
        read_only_fields = fields

    def get_next_try_at(self, delivery: Delivery) -> datetime | None:
        is_sent = delivery.status == Delivery.Status.WAITING and delivery.webhook.is_active
        return delivery.next_try_at if is_sent else None


def _own(request: Request, pk: int) -> Webhook:
    """Raises NotFound, also for somebody else's."""
    found = Webhook.objects.filter(user=person_of(request), pk=pk).first()
    if found is None:
        raise NotFound("There is no such webhook of yours.")
    return found


class WebhookList(generics.ListAPIView[Webhook]):
    permission_classes = [SignedIn]
    serializer_class = WebhookSerializer
    keyset_order = ("-created_at", "-id")
    queryset = Webhook.objects.none()

    def get_queryset(self) -> QuerySet[Webhook]:
        only(self.request, "cursor", "limit")
        return Webhook.objects.filter(user=person_of(self.request))

    @extend_schema(
        tags=TAG,
        operation_id="webhooks_list",
        responses={200: WebhookSerializer(many=True), **refusals(400, 401, 403)},
    )
    def get(self, request: Request, *args: object, **kwargs: object) -> Response:
        """Your webhooks, the newest first."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        tags=TAG,
        operation_id="webhooks_create",
        request=NewWebhookSerializer,
        responses={201: CreatedWebhookSerializer, **refusals(400, 401, 403, 409, 415)},
    )
    def post(self, request: Request) -> Response:
        """Have an address told what happens. The answer alone has the secret that signs it."""
        only(request)
        form = NewWebhookSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        webhook, secret = webhooks.create(user=person_of(request), **form.validated_data)
        webhook.secret = secret  # in this answer, where the row has it sealed
        answer = Response(CreatedWebhookSerializer(webhook).data, status=201)
        answer["Location"] = request.build_absolute_uri(f"{request.path}{webhook.pk}/")
        return answer


class WebhookDetail(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        tags=TAG,
        operation_id="webhooks_read",
        responses={200: WebhookSerializer, **refusals(400, 401, 403, 404)},
    )
    def get(self, request: Request, id: int) -> Response:
        """One webhook of yours."""
        only(request)
        return Response(WebhookSerializer(_own(request, id)).data)

    @extend_schema(
        tags=TAG,
        operation_id="webhooks_delete",
        responses={204: OpenApiResponse(description="Removed."), **refusals(400, 401, 403, 404)},
    )
    def delete(self, request: Request, id: int) -> Response:
        """Remove a webhook and what was sent to it."""
        only(request)
        webhooks.remove(user=person_of(request), pk=id)
        return Response(status=204)


class WebhookSwitchOn(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        tags=TAG,
        operation_id="webhooks_switch_on",
        request=None,
        responses={200: WebhookSerializer, **refusals(400, 401, 403, 404)},
    )
    def post(self, request: Request, id: int) -> Response:
        """Send to it again, after it was switched off for failing."""
        only(request)
        webhooks.switch_on(user=person_of(request), pk=id)
        return Response(WebhookSerializer(_own(request, id)).data)


class WebhookTest(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        tags=TAG,
        operation_id="webhooks_test",
        request=None,
        responses={
            202: OpenApiResponse(description="Sent within seconds."),
            **refusals(400, 401, 403, 404, 409),
        },
    )
    def post(self, request: Request, id: int) -> Response:
        """Send it a `ping`. How that went is among its deliveries."""
        only(request)
        webhooks.send_test(user=person_of(request), pk=id)
        return Response(status=202)


class DeliveryList(generics.ListAPIView[Delivery]):
    permission_classes = [SignedIn]
    serializer_class = DeliverySerializer
    keyset_order = ("-created_at", "-id")
    queryset = Delivery.objects.none()

    def get_queryset(self) -> QuerySet[Delivery]:
        only(self.request, "cursor", "limit")
        hook = _own(self.request, self.kwargs["id"])
        return Delivery.objects.filter(webhook=hook).select_related("webhook")

    @extend_schema(
        tags=TAG,
        operation_id="webhooks_deliveries",
        responses={200: DeliverySerializer(many=True), **refusals(400, 401, 403, 404)},
    )
    def get(self, request: Request, *args: object, **kwargs: object) -> Response:
        """What was sent to it in the last 30 days, and what waits, the newest first."""
        return super().get(request, *args, **kwargs)


class DeliveryReplay(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        tags=TAG,
        operation_id="webhooks_replay",
        request=None,
        responses={202: DeliverySerializer, **refusals(400, 401, 403, 404, 409)},
    )
    def post(self, request: Request, id: int) -> Response:
        """Send a message once more, within seconds."""
        only(request)
        again = webhooks.replay(user=person_of(request), pk=id)
        return Response(DeliverySerializer(again).data, status=202)
