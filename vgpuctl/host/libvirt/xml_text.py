"""XML that came from somewhere else: parsed without following anything that it points to."""

from __future__ import annotations

from lxml import etree

from vgpuctl.errors import InvalidInput


def parse(text: str) -> etree._Element:
    """The root element of `text`; InvalidInput when it is no XML, or has a document type.

    No entity is resolved, no DTD loaded, no network used.  CDATA, comments and processing
    instructions are kept.  libvirt neither writes nor reads a document type.
    """
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        strip_cdata=False,
        remove_comments=False,
        remove_pis=False,
    )
    try:
        root = etree.fromstring(text.encode("utf-8"), parser)
    except (etree.XMLSyntaxError, UnicodeEncodeError) as error:
        raise InvalidInput(f"not XML: {error}") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise InvalidInput(
            "XML with a document type is not read",
            hint="Remove the <!DOCTYPE ...>; libvirt's XML has none.",
        )
    return root


def render(root: etree._Element) -> str:
    """The whole document of `root` as text, with what stands before and after the root element."""
    return etree.tostring(root.getroottree(), encoding="unicode")
