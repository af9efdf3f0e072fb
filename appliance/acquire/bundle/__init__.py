"""Bundles on the disk: opened and checked, unpacked to where things belong, written from what is here."""

from appliance.acquire.bundle import pack
from appliance.acquire.bundle.archive import Archive, chunk_size, slot
from appliance.acquire.bundle.base import Known
from appliance.acquire.bundle.carried import Bundle
from appliance.acquire.bundle.reader import Reader, open_bundle
from appliance.bundle.index import CHUNK

__all__ = ["CHUNK", "Archive", "Bundle", "Known", "Reader", "chunk_size", "open_bundle", "pack", "slot"]
