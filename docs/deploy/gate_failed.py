"""Tell a webhook (a chat, a pager) when the gate refused to publish.

    python gate_failed.py https://hooks.example.org/...

Makes an automation on the Prefect server that PREFECT_API_URL names (the one that `wattledger serve` prints);
PREFECT_API_AUTH_STRING is the line in its file of the password.
"""

from __future__ import annotations

import sys

from prefect.automations import Automation
from prefect.blocks.webhook import Webhook
from prefect.events.actions import CallWebhook
from prefect.events.schemas.automations import EventTrigger, Posture

url = sys.argv[1]
hook = Webhook(method="POST", url=url, allow_private_urls=True)
block = hook.save("wattledger-gate-failed", overwrite=True)
Automation(
    name="wattledger: the gate refused to publish",
    trigger=EventTrigger(
        expect={"wattledger.gate.failed"},
        match={"prefect.resource.id": "wattledger.project.*"},
        posture=Posture.Reactive,
        threshold=1,
        within=0,
    ),
    actions=[
        CallWebhook(
            block_document_id=block,
            payload='{"text": "{{ event.payload.project }}: {{ event.payload.reason }}"}',
        )
    ],
).create()
print(f"{url} is told when the gate refuses")
