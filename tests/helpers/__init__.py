"""What several tests share."""

# jaxtyping names the checker by its path and imports only the package.
from helpers import typechecked as typechecked
