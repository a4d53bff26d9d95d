"""The notifier: subscriptions, and deliveries by Slack, e-mail and signed webhooks."""
