"""Images: references, content by digest, unpacked layers, registries, builds. `store.ImageStore` is the way in."""
