"""What is wrong with the blocks of the guide, block by block: `docs/fastapi-integration.md` shows the same table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from blocks import Correction

from agentmap_asgi.errors import ConfigError

CONFIG: Final = 'from agentmap.config import AgentMapConfig\n\nconfig = AgentMapConfig(csv_path="./workflows/")\n'
APP: Final = "from fastapi import FastAPI\n\napp = FastAPI()\n"

CORRECTIONS: Final[Mapping[str, tuple[Correction, ...]]] = {
    "Basic Integration": (),
    "With Authentication": (),
    "Test Integration": (),
    "Shared Services Integration": (
        Correction(
            wrong="`include_agentmap_routes` is used and not imported",
            old="from agentmap.services.fastapi import AgentMapService\n",
            new="from agentmap.services.fastapi import AgentMapService, include_agentmap_routes\n",
            fails=NameError,
            match="'include_agentmap_routes' is not defined",
        ),
        Correction(
            wrong="The host's own functions and classes that it calls are not imported",
            old="from your_redis import get_redis_client\n",
            new="from your_redis import CacheService, NotificationService, create_redis_client\n"
            "from your_database import create_db_pool\nfrom your_models import UserService\n"
            "from your_analytics import AnalyticsService\n",
            fails=RuntimeError,
            match="name 'create_db_pool' is not defined",
        ),
        Correction(
            wrong="`@app.on_event` is deprecated (Starlette has removed it, FastAPI warns), and nothing closes what was opened: "
            "use a lifespan",
            old='app = FastAPI()\n\n# Your existing services\n@app.on_event("startup")\nasync def startup_event():\n'
            "    # Initialize your services\n"
            "    app.state.db_pool = await create_db_pool()\n"
            "    app.state.redis = await create_redis_client()\n"
            "    app.state.cache = CacheService(app.state.redis)\n",
            new="from contextlib import asynccontextmanager\n\n@asynccontextmanager\nasync def lifespan(app):\n"
            "    app.state.db_pool = await create_db_pool()\n"
            "    app.state.redis = await create_redis_client()\n"
            "    app.state.cache = CacheService(app.state.redis)\n"
            "    yield\n    await app.state.redis.aclose()\n\napp = FastAPI(lifespan=lifespan)\n",
            fails=DeprecationWarning,
            match="on_event is deprecated",
        ),
        Correction(
            wrong="No agent is there to use the services: say where yours are (`custom_agents_path`)",
            old='    csv_path="./workflows/",\n',
            new='    csv_path="./workflows/",\n    custom_agents_path="./custom_agents/",\n',
            fails=AssertionError,
            match="graph_invalid",
        ),
    ),
    "Custom Middleware Integration": (
        Correction(
            wrong="There is no `app`",
            old="from fastapi import Request, Response\n",
            new="from fastapi import FastAPI, Request, Response\n\napp = FastAPI()\n",
            fails=NameError,
            match="'app' is not defined",
        ),
        Correction(
            wrong="`uuid` and `datetime` are used and not imported",
            old="import time\nimport logging\n",
            new="import logging\nimport time\nimport uuid\nfrom datetime import UTC, datetime\n",
            fails=NameError,
            match="'uuid' is not defined",
        ),
        Correction(
            wrong="`datetime.utcnow()` gives a time without a zone, and is deprecated since Python 3.12",
            old="datetime.utcnow()",
            new="datetime.now(UTC)",
            fails=(AssertionError, DeprecationWarning),
            match="no zone|deprecated",
        ),
    ),
    "Custom Response Formatting": (
        Correction(
            wrong="There is no `app` and no `config`",
            new=APP + CONFIG,
            fails=NameError,
            match="is not defined",
        ),
        Correction(
            wrong="The links leave out the prefix under which the routes are, so they lead nowhere",
            old='                "self": f"/workflows/executions/{result.get(\'execution_id\')}",\n'
            '                "workflow": f"/workflows/{result.get(\'graph_name\')}"\n',
            new='                "self": f"/api/v1/workflows/executions/{result.get(\'execution_id\')}",\n'
            '                "workflow": f"/api/v1/workflows/{result.get(\'graph_name\')}"\n',
            fails=AssertionError,
            match="404",
        ),
    ),
    "E-commerce Application": (
        Correction(
            wrong="The host's own `create_order_in_db` and `get_order_by_id` are not imported",
            old="from your_models import User, Order, Product\n",
            new="from your_models import Order, Product, User, create_order_in_db, get_order_by_id\n",
            fails=NameError,
            match="'create_order_in_db' is not defined",
        ),
        Correction(
            wrong="Nothing creates the `agentmap_service` that the routes use: `include_agentmap_routes` gives it",
            old="# Add AgentMap workflows with authentication\ninclude_agentmap_routes(\n",
            new="# Add AgentMap workflows with authentication\nagentmap_service = include_agentmap_routes(\n",
            fails=NameError,
            match="'agentmap_service' is not defined",
        ),
        Correction(
            wrong="The order never learns its `workflow_execution_id`, so its status is that of no execution",
            old='    return {\n        "order": order,\n',
            new='    order.workflow_execution_id = workflow_result["execution_id"]\n    db.commit()\n\n'
            '    return {\n        "order": order,\n',
            fails=Exception,
            match="No execution has this id",
        ),
    ),
    "Analytics Dashboard": (
        Correction(
            wrong="There is no `config`, and `datetime` is not imported",
            new="from datetime import UTC, datetime\n" + CONFIG,
            fails=NameError,
            match="'config' is not defined",
        ),
        Correction(
            wrong="`datetime.utcnow()` gives a time without a zone, and is deprecated since Python 3.12",
            old="datetime.utcnow()",
            new="datetime.now(UTC)",
            fails=(AssertionError, DeprecationWarning),
            match="no zone|deprecated",
        ),
        Correction(
            wrong='Nobody sets `context["user_id"]` but the caller, in the body: who calls is `context["principal"]`, '
            "with `principal=` (here the started event)",
            old='            "user_id": context.get("user_id"),\n            "timestamp"',
            new='            "user_id": context.get("principal"),\n            "timestamp"',
            fails=AssertionError,
            match="the caller chose who it is",
        ),
        Correction(
            wrong="The same for the completed event",
            old='            "user_id": context.get("user_id")\n        })\n',
            new='            "user_id": context.get("principal")\n        })\n',
            fails=AssertionError,
            match="the caller chose who it is",
        ),
        Correction(
            wrong="`dependencies=` let callers pass and say nothing of them; `principal=` does both",
            old="    dependencies=[Depends(require_admin_role)]\n",
            new="    principal=Depends(require_admin_role)\n",
            fails=AssertionError,
            match="nobody is known",
        ),
    ),
    "Healthcare Platform": (
        Correction(
            wrong="`Request`, `AgentMapService`, `get_db`, the host's `create_appointment` and a `config` are missing",
            new="from fastapi import Request\nfrom agentmap.services.fastapi import AgentMapService\n"
            "from your_compliance import encrypt_fields, without_phi\nfrom your_database import get_db\n"
            "from your_models import create_appointment\n" + CONFIG,
            fails=NameError,
            match="is not defined",
        ),
        Correction(
            wrong="The middleware looks for `/workflows` where the prefix is `/care/workflows`, and what `call_next` gives "
            "is a stream without a `body`: nothing is ever encrypted. `filter_response` of the service sees every document "
            "before it leaves",
            old="    # Ensure PHI is encrypted in responses\n"
            '    if request.url.path.startswith("/workflows") and hasattr(response, "body"):\n'
            "        response.body = encrypt_phi(response.body)\n    \n",
            new="",
            also=(
                (
                    "class ComplianceAgentMapService(AgentMapService):\n",
                    "class ComplianceAgentMapService(AgentMapService):\n"
                    "    async def filter_response(self, document: dict, request_context: dict):\n"
                    "        return encrypt_fields(document)\n\n",
                ),
            ),
            fails=AssertionError,
            match="in the clear",
        ),
        Correction(
            wrong="Nothing creates the `agentmap_service` that the route uses: `include_agentmap_routes` gives it",
            old="# Add AgentMap with healthcare-specific configuration\ninclude_agentmap_routes(\n",
            new="# Add AgentMap with healthcare-specific configuration\nagentmap_service = include_agentmap_routes(\n",
            fails=NameError,
            match="'agentmap_service' is not defined",
        ),
        Correction(
            wrong="The service has no `sanitize_phi_data`",
            old="self.sanitize_phi_data(initial_state)",
            new="without_phi(initial_state)",
            fails=AttributeError,
            match="sanitize_phi_data",
        ),
    ),
    "Environment-Specific Integration": (
        Correction(
            wrong="There is no `app`, and `include_agentmap_routes` is not imported",
            new=APP + "from agentmap.services.fastapi import include_agentmap_routes\n",
            fails=NameError,
            match="'include_agentmap_routes' is not defined",
        ),
        Correction(
            wrong="`require_api_key=True` without a key would let nobody in, so it is refused at the start: give `api_keys`",
            old="            require_api_key=True,\n",
            new='            require_api_key=True,\n            api_keys=os.environ["AGENTMAP_API_KEYS"],\n',
            fails=ConfigError,
            match="require_api_key",
        ),
    ),
    "Database Integration": (
        Correction(
            wrong="`declarative_base` has moved to `sqlalchemy.orm`",
            old="from sqlalchemy.ext.declarative import declarative_base\nfrom sqlalchemy.orm import sessionmaker\n",
            new="from sqlalchemy.orm import declarative_base, sessionmaker\n",
            fails=DeprecationWarning,
            match="declarative_base",
        ),
        Correction(
            wrong="`datetime`, `DATABASE_URL`, `config`, `app` and `include_agentmap_routes` are missing, and nobody creates "
            "the table",
            new="from datetime import UTC, datetime\nfrom agentmap.services.fastapi import include_agentmap_routes\n"
            + APP
            + CONFIG
            + 'DATABASE_URL = "sqlite:///executions.db"\n',
            also=(
                (
                    "engine = create_engine(DATABASE_URL)\n",
                    "engine = create_engine(DATABASE_URL)\nBase.metadata.create_all(engine)\n",
                ),
            ),
            fails=NameError,
            match="is not defined",
        ),
        Correction(
            wrong="`get_db` is a generator function, made for `Depends`: calling it gives no session. Pass the "
            "`sessionmaker`, and close what it makes",
            old="DatabaseIntegratedAgentMapService(config, get_db)",
            new="DatabaseIntegratedAgentMapService(config, SessionLocal)",
            also=(
                (
                    "            db.commit()\n            raise\n",
                    "            db.commit()\n            raise\n        finally:\n            db.close()\n",
                ),
            ),
            fails=AttributeError,
            match="'generator' object has no attribute 'add'",
        ),
        Correction(
            wrong="`datetime.utcnow()` is deprecated since Python 3.12 (here where an execution starts)",
            old="            started_at=datetime.utcnow(),\n",
            new="            started_at=datetime.now(UTC),\n",
            fails=DeprecationWarning,
            match="utcnow",
            since=(3, 12),
        ),
        Correction(
            wrong="The same where it ends",
            old="            execution.completed_at = datetime.utcnow()\n            db.commit()\n            \n            return result\n",
            new="            execution.completed_at = datetime.now(UTC)\n            db.commit()\n            \n            return result\n",
            fails=DeprecationWarning,
            match="utcnow",
            since=(3, 12),
        ),
        Correction(
            wrong="The same where it fails",
            old='            execution.result = {"error": str(e)}\n            execution.completed_at = datetime.utcnow()\n',
            new='            execution.result = {"error": str(e)}\n            execution.completed_at = datetime.now(UTC)\n',
            fails=DeprecationWarning,
            match="utcnow",
            since=(3, 12),
        ),
    ),
    "Testing with Existing Test Suite": (
        Correction(
            wrong="The host's `create_test_user` is not imported",
            old="from your_tests.fixtures import authenticated_client, mock_db\n",
            new="from your_tests.fixtures import authenticated_client, create_test_user, mock_db\n",
            fails=AssertionError,
            match="'create_test_user' is not defined",
        ),
        Correction(
            wrong="The last test calls without credentials what the test before it proves to need them",
            old="    with mock_db() as db:\n",
            new="    with mock_db() as db, authenticated_client() as auth_client:\n",
            also=(
                (
                    'response = client.post("/workflows/execute", json={\n            "graph_name": "UserWorkflow"',
                    'response = auth_client.post("/workflows/execute", json={\n            "graph_name": "UserWorkflow"',
                ),
            ),
            fails=AssertionError,
            match="assert 401 == 200",
        ),
    ),
    "End-to-End Testing": (
        Correction(
            wrong="httpx has removed `AsyncClient(app=…)`: give it an `ASGITransport`, or use "
            "`agentmap_asgi.testing.AgentMapClient`, which runs the lifespan too",
            old='AsyncClient(app=app, base_url="http://test")',
            new='AsyncClient(transport=ASGITransport(app), base_url="http://test")',
            also=(("from httpx import AsyncClient\n", "from httpx import ASGITransport, AsyncClient\n"),),
            fails=AssertionError,
            match="unexpected keyword argument 'app'",
        ),
        Correction(
            wrong="`pytest.mark.asyncio` needs a plugin of its own; `anyio` is there already",
            old="@pytest.mark.asyncio\n",
            new="@pytest.mark.anyio\n",
            fails=AssertionError,
            match="Unknown pytest.mark.asyncio",
        ),
    ),
    "Gradual Migration": (
        Correction(
            wrong="`app`, `Depends`, `logger`, `agentmap_service` and the host's own functions are missing",
            new="import logging\nfrom fastapi import Depends\nfrom agentmap.services.fastapi import AgentMapService\n"
            "from your_auth import get_current_user\nfrom your_legacy import get_feature_flag, process_order_legacy\n"
            + APP
            + CONFIG
            + "agentmap_service = AgentMapService(config)\nlogger = logging.getLogger(__name__)\n",
            fails=NameError,
            match="is not defined",
        ),
        Correction(
            wrong="Three phases are three states of one program: of three routes with one path only the first ever answers",
            old="# Phase 2: Feature flag migration\n@app.post",
            new="# Phase 2: Feature flag migration\napp_v2 = FastAPI()\n@app_v2.post",
            also=(
                (
                    "# Phase 3: Full migration\n@app.post",
                    "# Phase 3: Full migration\napp_v3 = FastAPI()\n@app_v3.post",
                ),
            ),
            fails=AssertionError,
            match="the first phase answered",
        ),
    ),
    "Migration Tools": (
        Correction(
            wrong="`app`, `Depends`, `logger`, `agentmap_service` and the host's own functions are missing",
            new="import logging\nfrom fastapi import Depends\nfrom your_auth import get_current_user\n"
            "from your_legacy import onboard_user_legacy, process_order_legacy\n"
            "from agentmap.services.fastapi import AgentMapService\n"
            + APP
            + CONFIG
            + "agentmap_service = AgentMapService(config)\nlogger = logging.getLogger(__name__)\n",
            fails=NameError,
            match="is not defined",
        ),
        Correction(
            wrong="A fallback that is a plain function, as the legacy code is, cannot be awaited. The package has a "
            "`MigrationHelper` that takes both",
            old="# Usage\nmigration_helper = ",
            new="# Usage\nfrom agentmap import MigrationHelper\nmigration_helper = ",
            fails=TypeError,
            match="can't be used in 'await' expression|can't be awaited",
        ),
    ),
    "Optimization for Integration": (
        Correction(
            wrong="`create_engine` and `DATABASE_URL` are missing",
            new='from sqlalchemy import create_engine\nDATABASE_URL = "sqlite:///performance.db"\n',
            fails=NameError,
            match="'create_engine' is not defined",
        ),
        Correction(
            wrong="`lru_cache` on a method keeps definitions (and the service) for ever, also after the file has changed. "
            "Definitions are kept already",
            old="    @lru_cache(maxsize=100)\n",
            new="",
            fails=AssertionError,
            match="an old definition",
        ),
        Correction(
            wrong="A `Semaphore` belongs to the event loop that first waits for it, and a service may see several (tests do): "
            "keep one for each loop, or set `max_running=10`",
            old="        self._execution_semaphore = asyncio.Semaphore(10)  # Limit concurrent executions\n",
            new="        self._semaphores = WeakKeyDictionary()  # one for each event loop\n",
            also=(
                (
                    "        async with self._execution_semaphore:\n",
                    "        loop = asyncio.get_running_loop()\n"
                    "        async with self._semaphores.setdefault(loop, asyncio.Semaphore(10)):\n",
                ),
                ("import asyncio\n", "import asyncio\nfrom weakref import WeakKeyDictionary\n"),
            ),
            fails=RuntimeError,
            match="different event loop",
        ),
    ),
}
