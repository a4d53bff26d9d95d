from approval import keyring
from approval.app import build
from approval.settings import ApprovalSettings
from kit.main import run

if __name__ == "__main__":
    run("approval", ApprovalSettings, build, commands=[keyring.COMMAND])
