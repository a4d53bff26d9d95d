"""The composition root: the only file that knows every other."""

import asyncio
from importlib.metadata import version

import structlog
from fastapi import FastAPI

from contracts.notifier import Channel
from contracts.topics import NOTIFIER_EVENTS
from kit import outbound
from kit.bus import Bus
from kit.db import Database
from kit.events import EventLog
from kit.inbox import Inbox
from kit.keys import load_key
from kit.outbox import Relay
from kit.web import Guard, make_app
from kit.webhooks import private_half
from notifier import api, consumers
from notifier.breaker import rates_of
from notifier.bundles import Bundler
from notifier.channels import Sender
from notifier.channels.email import EmailSender, Smtp
from notifier.channels.others import AppriseSender
from notifier.channels.pagerduty import PagerDutySender
from notifier.channels.render import Renderer
from notifier.channels.slack import SlackSender
from notifier.channels.slack_bot import SlackBot
from notifier.channels.slack_threads import Threads
from notifier.channels.teams import TeamsSender
from notifier.channels.webhook import WebhookSender
from notifier.commands import Commands
from notifier.confirming import Asker, Confirming
from notifier.editing import Editing
from notifier.pruning import Pruning
from notifier.queue import ACTOR
from notifier.quieting import Quieting
from notifier.reconciling import Reconciling
from notifier.replaying import Replaying
from notifier.retrying import Schedule
from notifier.rights import Rights
from notifier.settings import NotifierSettings
from notifier.tables import mechanism
from notifier.templating import Press, Templates
from notifier.vault import Vault, seal
from notifier.worker import Worker

SERVICE = "notifier"
VERSION = version("hallmark-service-notifier")
log = structlog.get_logger()


def build(settings: NotifierSettings) -> FastAPI:
    db = Database(settings.database_url.get_secret_value(), name=SERVICE, pool=settings.database_pool)
    bus = Bus(settings, SERVICE)
    events = EventLog(mechanism, topic=NOTIFIER_EVENTS.name, source=ACTOR)
    vault = Vault.load(settings.secret_key)
    if not vault.sealing:
        log.warning("HALLMARK_SECRET_KEY is not set: no subscription that has a secret is taken")
    if settings.webhook_key is None:
        log.warning("HALLMARK_WEBHOOK_KEY is not set: webhooks are signed by the secrets of their subscriptions only")
    callable_ = outbound.Guard(settings.webhook_allow)
    inbox, wake = Inbox(mechanism), asyncio.Event()
    consumers.subscribe(bus, db, events, inbox, wake)
    press = Press()
    guard = Guard(settings)
    rights = Rights(db, guard.access)
    worker = Worker(
        db,
        events,
        senders(settings, callable_, db),
        vault,
        rights,
        Schedule(settings.retry_seconds),
        wake,
        templates=Templates(db, press),
        rates=rates_of(settings.delivery_rates),
        concurrency=settings.delivery_concurrency,
        share=settings.delivery_concurrency_per_subscription,
        lease_seconds=settings.lease_seconds,
        poll_seconds=settings.delivery_poll_seconds,
        graceful_seconds=settings.graceful_seconds,
    )
    confirming = Confirming(db, events, vault)
    mail = email_sender(settings)
    asker = Asker(db, vault, mail, Schedule(settings.retry_seconds), poll_seconds=settings.delivery_poll_seconds)
    bundler = Bundler(db, events, wake, rights, poll_seconds=settings.delivery_poll_seconds)
    relay = Relay.of(db, events, settings)
    callers = api.Callers(guard, db, events)
    commands = Commands(
        db,
        events,
        inbox,
        callable_,
        vault,
        mail=settings.smtp_host is not None,
        hides_mailboxes=guard.people is not None,
        secret_overlap_seconds=settings.secret_overlap_seconds,
        apprise_schemes=settings.apprise_schemes,
        slack_bot=bool(settings.slack_bot_token),
    )

    async def seal_all() -> None:
        if vault.sealing:
            async with db.transaction() as tx:
                await seal(tx, vault)

    pruning = Pruning(db, settings.attempt_days)
    reconciling = Reconciling(db, events, every_seconds=settings.reconcile_seconds, days=settings.reconcile_days)
    return make_app(
        settings,
        service=SERVICE,
        version=VERSION,
        db=db,
        bus=bus,
        routers=[
            api.subscriptions(db, commands, Editing(db, events), confirming, callers),
            api.deliveries(db, commands, Replaying(db, events), reconciling, callers),
            api.quiet(db, Quieting(db, events), callers),
            api.templates(db, events, press, callers),
            api.keys(settings.webhook_key),
            api.mail(commands, confirming, Renderer()),
        ],
        on_start=[seal_all],
        background=[relay.run, worker.run, asker.run, bundler.run, reconciling.run, press.run, pruning.run],
        people=guard.people,
    )


def email_sender(settings: NotifierSettings) -> EmailSender:
    smtp = None
    if settings.smtp_host is not None:
        password = settings.smtp_password
        smtp = Smtp(
            settings.smtp_host,
            settings.smtp_port,
            settings.mail_from,
            username=settings.smtp_username,
            password=password.get_secret_value() if password else None,
            tls=settings.smtp_tls,
        )
    return EmailSender(smtp, Renderer(), url=settings.notifier_url, timeout=settings.send_timeout_seconds)


def senders(settings: NotifierSettings, guard: outbound.Guard, db: Database) -> dict[Channel, Sender]:
    timeout, renderer, console = settings.send_timeout_seconds, Renderer(), settings.console_url
    key = private_half(load_key(settings.webhook_key)) if settings.webhook_key else None
    client = outbound.guarded_client(guard, timeout)
    bot = None
    if settings.slack_bot_token:
        token, interactive = settings.slack_bot_token.get_secret_value(), settings.slack_interactive
        bot = SlackBot(token, Threads(db), url=settings.slack_url, interactive=interactive, timeout=timeout)
    return {
        Channel.SLACK: SlackSender(client, renderer, console=console, bot=bot, timeout=timeout),
        Channel.EMAIL: email_sender(settings),
        Channel.PAGERDUTY: PagerDutySender(client, url=settings.pagerduty_url, console=console, timeout=timeout),
        Channel.TEAMS: TeamsSender(client, console=console, timeout=timeout),
        Channel.APPRISE: AppriseSender(settings.apprise_schemes, timeout=timeout),
        Channel.WEBHOOK: WebhookSender(client, key=key, url=settings.notifier_url, timeout=timeout),
    }
