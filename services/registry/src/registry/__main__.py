from kit.main import run
from registry.app import build
from registry.settings import RegistrySettings

run("registry", RegistrySettings, build)
