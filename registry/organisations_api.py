"""REST over organisations: doors to `organisations`."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry import organisations, profiles, rights
from registry.api_parts import only, person_of
from registry.authentication import SignedIn
from registry.invitation_mail import tell_invited
from registry.models import Membership, Namespace
from registry.models.accounts import MAX_ABOUT
from registry.serializers import StrictSerializer
from web.api_schema import refusals
from web.errors import Conflict

ROLE = Membership.Role.choices


class MemberSerializer(serializers.Serializer):
    username = serializers.CharField(source="user.username")
    role = serializers.ChoiceField(choices=ROLE)


class OrganisationSerializer(serializers.Serializer):
    name = serializers.CharField()
    full_name = serializers.CharField()
    about = serializers.CharField(help_text="What it says of itself, in one line.")
    website = serializers.CharField()
    your_role = serializers.ChoiceField(choices=ROLE)


class OrganisationDetailSerializer(OrganisationSerializer):
    members = MemberSerializer(many=True)
    invited = MemberSerializer(many=True, help_text="Who was asked and has not answered; for admins only.")


class InvitationSerializer(serializers.Serializer):
    organization = serializers.CharField(source="namespace.name")
    role = serializers.ChoiceField(choices=ROLE)


class NewOrganisationSerializer(StrictSerializer):
    name = serializers.CharField()
    full_name = serializers.CharField(required=False, default="", allow_blank=True)


class OrganisationChangesSerializer(StrictSerializer):
    full_name = serializers.CharField(required=False, allow_blank=True)
    about = serializers.CharField(
        required=False, allow_blank=True, help_text=f"One line of at most {MAX_ABOUT} characters."
    )
    website = serializers.CharField(
        required=False, allow_blank=True, help_text="An address that begins with https:// or http://."
    )


class InviteSerializer(StrictSerializer):
    username = serializers.CharField()
    role = serializers.ChoiceField(choices=ROLE, default=Membership.Role.WRITE)


class RoleSerializer(StrictSerializer):
    role = serializers.ChoiceField(choices=ROLE)


class OrganisationList(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        operation_id="organizations_list",
        responses={200: OrganisationSerializer(many=True), **refusals(400, 401, 403)},
    )
    def get(self, request: Request) -> Response:
        """The organisations that you belong to."""
        only(request)
        rows = organisations.organisations_of(person_of(request))
        return Response([_about(row.namespace, row.role) for row in rows])

    @extend_schema(
        operation_id="organizations_create",
        request=NewOrganisationSerializer,
        responses={201: OrganisationDetailSerializer, **refusals(400, 401, 403, 409, 415)},
    )
    def post(self, request: Request) -> Response:
        """Found an organisation; you are its first admin."""
        only(request)
        given = _read(NewOrganisationSerializer, request)
        organisation = organisations.create_organisation(founder=person_of(request), **given)
        return _detail(request, organisation, status=201)


class OrganisationDetail(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        operation_id="organizations_read",
        responses={200: OrganisationDetailSerializer, **refusals(400, 401, 403, 404)},
    )
    def get(self, request: Request, name: str) -> Response:
        """An organisation that you belong to, with its members."""
        only(request)
        return _detail(request, _organisation(request, name))

    @extend_schema(
        operation_id="organizations_change",
        request=OrganisationChangesSerializer,
        responses={200: OrganisationDetailSerializer, **refusals(400, 401, 403, 404, 415)},
    )
    def patch(self, request: Request, name: str) -> Response:
        """Change what it says of itself: the name that is shown, a line, a website."""
        only(request)
        organisation = _organisation(request, name)
        given = _read(OrganisationChangesSerializer, request)
        return _detail(request, organisations.describe(organisation, actor=person_of(request), **given))

    @extend_schema(
        operation_id="organizations_delete",
        responses={204: OpenApiResponse(description="Deleted."), **refusals(400, 401, 403, 404, 409)},
    )
    def delete(self, request: Request, name: str) -> Response:
        """Delete an organisation with all its adapters. Its name is not handed out again."""
        only(request)
        organisations.delete_organisation(_organisation(request, name), actor=person_of(request))
        return Response(status=204)


class MemberList(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        operation_id="organizations_invite",
        request=InviteSerializer,
        responses={201: OrganisationDetailSerializer, **refusals(400, 401, 403, 404, 409, 415)},
    )
    def post(self, request: Request, name: str) -> Response:
        """Ask somebody to join; a mail tells them. They belong to it once they accept."""
        only(request)
        organisation = _organisation(request, name)
        given = _read(InviteSerializer, request)
        invitation = organisations.invite(organisation, actor=person_of(request), **given)
        tell_invited(invitation, origin=request.build_absolute_uri("/").rstrip("/"))
        return _detail(request, organisation, status=201)


class MemberDetail(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        operation_id="organizations_change_role",
        request=RoleSerializer,
        responses={200: OrganisationDetailSerializer, **refusals(400, 401, 403, 404, 409, 415)},
    )
    def patch(self, request: Request, name: str, username: str) -> Response:
        """Give a member another role."""
        only(request)
        organisation = _organisation(request, name)
        given = _read(RoleSerializer, request)
        organisations.change_role(organisation, actor=person_of(request), username=username, **given)
        return _detail(request, organisation)

    @extend_schema(
        operation_id="organizations_remove",
        responses={204: OpenApiResponse(description="Removed."), **refusals(400, 401, 403, 404, 409)},
    )
    def delete(self, request: Request, name: str, username: str) -> Response:
        """Take a member out, or leave yourself. The last admin stays."""
        only(request)
        organisation = _organisation(request, name)
        organisations.remove(organisation, actor=person_of(request), username=username)
        return Response(status=204)


class InvitationList(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        operation_id="invitations_list",
        responses={200: InvitationSerializer(many=True), **refusals(400, 401, 403)},
    )
    def get(self, request: Request) -> Response:
        """The organisations that ask you to join."""
        only(request)
        rows = organisations.invitations_for(person_of(request))
        return Response(InvitationSerializer(rows, many=True).data)


class InvitationDetail(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        operation_id="invitations_accept",
        request=None,
        responses={200: OrganisationDetailSerializer, **refusals(400, 401, 403, 404)},
    )
    def post(self, request: Request, name: str) -> Response:
        """Join an organisation that asked you."""
        only(request)
        membership = organisations.accept(name, person=person_of(request))
        return _detail(request, membership.namespace)

    @extend_schema(
        operation_id="invitations_decline",
        responses={204: OpenApiResponse(description="Declined."), **refusals(400, 401, 403, 404)},
    )
    def delete(self, request: Request, name: str) -> Response:
        """Do not join."""
        only(request)
        organisations.decline(name, person=person_of(request))
        return Response(status=204)


def _read(serializer: type[StrictSerializer], request: Request) -> dict[str, Any]:
    form = serializer(data=request.data)
    form.is_valid(raise_exception=True)
    return dict(form.validated_data)


def _organisation(request: Request, name: str) -> Namespace:
    return rights.member_organisation(person_of(request), name)


def _about(organisation: Namespace, role: str) -> dict[str, Any]:
    return {
        "name": organisation.name,
        **{field: getattr(organisation, field) for field in profiles.LIMITS},
        "your_role": role,
    }


def _detail(request: Request, organisation: Namespace, *, status: int = 200) -> Response:
    members = list(organisations.members_of(organisation))
    role = next((member.role for member in members if member.user_id == request.user.pk), None)
    if role is None:  # taken out, or the organisation deleted, since it was asked
        _organisation(request, organisation.name)
        raise Conflict(f"Who belongs to {organisation.name} changes at this moment. Ask again.")
    is_admin = rights.is_admin(person_of(request), organisation)
    content = {
        **_about(organisation, role),
        "members": members,
        "invited": organisations.invitations_of(organisation) if is_admin else [],
    }
    return Response(OrganisationDetailSerializer(content).data, status=status)
