"""What a bundle is: its index, where each byte of it lies, who signed it, and whether it fits a machine. No effects.

A bundle is a plain tar archive, or the same tree as a directory, and an OCI image layout at once:

    bundle.json            the index: every payload with size, offset, SHA-256 of the whole and of each chunk
    bundle.json.minisig    Ed25519 signature of the bytes of bundle.json, in minisign's format
    oci-layout, index.json what makes it an OCI image layout
    blobs/sha256/HEX       every payload once, its data at a multiple of 4 KiB; the model's weights last

Nothing but the index says what is in it. The archive's own headers are never parsed: the index determines every one of
their bytes, and a reader compares. So there is no second opinion on names and sizes that somebody could smuggle by.
A directory tree (an engine, the gateway) is a list of names and modes, its large files, and one pack of its small ones.
"""
