"""Git: the user's repository, the run's hub, the nodes' mirrors and the agents' worktrees.

The only package that touches git. Knows no config, no ledger and no policy.
"""

from swarm.repo.hub import Conflict, Hub, create_hub, create_run_ignore
from swarm.repo.mirror import Mirror, Rejected, Snapshot, Worktree
from swarm.repo.process import (
    NO_OBJECT,
    SWARM,
    DiffStat,
    Identity,
    git_version,
    is_ancestor,
    read_file,
)
from swarm.repo.source import Source, apply, inspect
from swarm.repo.user import (
    Place,
    changes,
    check_branch_room,
    init_repository,
    locate,
    tracked_files,
)

__all__ = [
    "NO_OBJECT",
    "SWARM",
    "Conflict",
    "DiffStat",
    "Hub",
    "Identity",
    "Mirror",
    "Place",
    "Rejected",
    "Snapshot",
    "Source",
    "Worktree",
    "apply",
    "changes",
    "check_branch_room",
    "create_hub",
    "create_run_ignore",
    "git_version",
    "init_repository",
    "inspect",
    "is_ancestor",
    "locate",
    "read_file",
    "tracked_files",
]
