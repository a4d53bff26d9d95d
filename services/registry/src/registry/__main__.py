from kit.main import run
from registry import collect, rebuild
from registry.app import build
from registry.settings import RegistrySettings

run("registry", RegistrySettings, build, commands=[collect.COMMAND, rebuild.COMMAND])
