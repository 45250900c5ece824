"""CatalogService."""

from __future__ import annotations

from typing import Any

from rankloop.v1 import catalog_pb2 as pb
from rankloop.v1 import catalog_pb2_grpc
from server.catalog import Catalog


class CatalogServicer(catalog_pb2_grpc.CatalogServiceServicer):
    """Decodes, asks, encodes."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def UpsertItems(self, request: pb.UpsertItemsRequest, context: Any) -> pb.UpsertItemsResponse:
        stored = await self._catalog.upsert_items(request.items)
        return pb.UpsertItemsResponse(accepted_count=stored.accepted_count, rejected=stored.rejected)

    async def GetItem(self, request: pb.GetItemRequest, context: Any) -> pb.GetItemResponse:
        return pb.GetItemResponse(item=await self._catalog.get_item(request.item_id))

    async def ListItems(self, request: pb.ListItemsRequest, context: Any) -> pb.ListItemsResponse:
        items, token = await self._catalog.list_items(size=request.page_size, token=request.page_token, item_type=request.item_type)
        return pb.ListItemsResponse(items=items, next_page_token=token)

    async def DeleteItems(self, request: pb.DeleteItemsRequest, context: Any) -> pb.DeleteItemsResponse:
        return pb.DeleteItemsResponse(deleted_count=await self._catalog.delete_items(request.item_ids))

    async def UpsertUsers(self, request: pb.UpsertUsersRequest, context: Any) -> pb.UpsertUsersResponse:
        stored = await self._catalog.upsert_users(request.users)
        return pb.UpsertUsersResponse(accepted_count=stored.accepted_count, rejected=stored.rejected)

    async def GetUser(self, request: pb.GetUserRequest, context: Any) -> pb.GetUserResponse:
        return pb.GetUserResponse(user=await self._catalog.get_user(request.user_id))
