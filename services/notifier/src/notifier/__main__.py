from kit.main import run
from notifier.app import build
from notifier.settings import NotifierSettings

run("notifier", NotifierSettings, build)
