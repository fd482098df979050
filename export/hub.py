"""A bundle on the hub."""

from pathlib import Path

from agent.errors import NesyLoraError
from export.bundle import seal
from export.manifest import read_manifest


def push(bundle: Path, repo: str) -> str:
    """Upload a bundle into a repository, which is made if it is not there, for nobody but its owner.

    A bundle whose prompt retrieves holds rows of the task's data, and any card shows the prompt: whether others may see
    them is the owner's to decide, on the hub.

    Returns:
        The address of the upload.

    Raises:
        BadInput: no bundle.
        NesyLoraError: the hub refuses it, or cannot be reached.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    manifest = read_manifest(bundle)
    if manifest != (shown := manifest.without_test_answers()):
        seal(bundle, shown)
    api = HfApi()
    try:
        name = api.create_repo(repo, private=True, exist_ok=True).repo_id
        done = api.upload_folder(repo_id=name, folder_path=bundle, commit_message=f"{manifest.name}, by NeSyLoRA")
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, httpx.HTTPError, OSError) as error:
        raise NesyLoraError(
            f"the bundle could not be uploaded to {repo}: {str(error).splitlines()[0]} Log in with `hf auth login`, or "
            f"upload {bundle} yourself."
        ) from error
    return str(done.commit_url)
