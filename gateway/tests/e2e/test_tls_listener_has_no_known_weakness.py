"""sslyze against the gateway's TLS listener: Mozilla's intermediate profile, and every known attack that it looks for."""

import pytest
import requests
from sslyze import (
    CertificateInfoExtraArgument,
    ScanCommand,
    ScanCommandAttemptStatusEnum,
    ScanCommandsExtraArguments,
    Scanner,
    ServerNetworkConfiguration,
    ServerNetworkLocation,
    ServerScanRequest,
    ServerScanStatusEnum,
)
from sslyze.mozilla_tls_profile.tls_config_checker import (
    MozillaTlsConfiguration,
    ServerNotCompliantWithTlsConfiguration,
    TlsConfigurationEnum,
    check_server_against_tls_configuration,
)

from authority import issue
from house import Node, free_ports

COMMANDS = set(ScanCommand) - {ScanCommand.HTTP_HEADERS}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return issue(tmp_path_factory.mktemp("authority"), ["localhost", "127.0.0.1"])


@pytest.fixture(scope="module")
def tls_node(tmp_path_factory, authority):
    folder = tmp_path_factory.mktemp("tls-node")
    (redirect,) = free_ports(1)
    node = Node(
        folder,
        {
            "gateway.tls": {
                "certificate": str(authority / "chain"),
                "key": str(authority / "key"),
            },
            "gateway.redirect_listen": f"127.0.0.1:{redirect}",
        },
    )
    node.redirect_url = f"http://127.0.0.1:{redirect}"
    node.settings["gateway.public_url"] = f"https://localhost:{node.address[1]}"
    node.start()
    yield node
    assert node.stop() == 0


@pytest.fixture(scope="module")
def scanned(tls_node, authority):
    request = ServerScanRequest(
        server_location=ServerNetworkLocation(
            hostname="localhost", port=tls_node.address[1], ip_address="127.0.0.1"
        ),
        network_configuration=ServerNetworkConfiguration(
            tls_server_name_indication="localhost", network_timeout=10
        ),
        scan_commands=COMMANDS,
        scan_commands_extra_arguments=ScanCommandsExtraArguments(
            certificate_info=CertificateInfoExtraArgument(
                custom_ca_file=authority / "root"
            )
        ),
    )
    scanner = Scanner()
    scanner.queue_scans([request])
    (result,) = scanner.get_results()
    assert result.scan_status == ServerScanStatusEnum.COMPLETED, result
    for command in COMMANDS:
        attempt = getattr(result.scan_result, command.value)
        assert attempt.status == ScanCommandAttemptStatusEnum.COMPLETED, (
            f"{command}: {attempt.error_trace}"
        )
    return result


def test_it_meets_the_intermediate_profile(scanned):
    profile = MozillaTlsConfiguration.get(TlsConfigurationEnum.MOZILLA_INTERMEDIATE)
    issues = {}
    try:
        check_server_against_tls_configuration(scanned, profile)
    except ServerNotCompliantWithTlsConfiguration as error:
        issues = error.issues
    assert issues == {}


def test_only_tls_1_2_and_1_3_are_spoken(scanned):
    spoken = {
        name
        for name in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2", "tls_1_3")
        if getattr(scanned.scan_result, f"{name}_cipher_suites").result.accepted_cipher_suites
    }
    assert spoken == {"tls_1_2", "tls_1_3"}


def test_no_early_data_and_no_renegotiation_that_clients_start(scanned):
    result = scanned.scan_result
    assert not result.tls_1_3_early_data.result.supports_early_data
    renegotiation = result.session_renegotiation.result
    assert not renegotiation.is_vulnerable_to_client_renegotiation_dos


def test_browsers_are_told_to_stay_and_plain_http_sends_them_there(tls_node, authority):
    url = tls_node.settings["gateway.public_url"]
    answer = requests.get(f"{url}/nothing", verify=str(authority / "root"), timeout=10)
    assert answer.status_code == 404
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    answer = requests.get(
        f"{tls_node.redirect_url}/s/x/lab?a=1&token=secret",
        headers={"Host": "evil.example"},
        allow_redirects=False,
        timeout=10,
    )
    assert answer.status_code == 308
    assert answer.headers["location"] == f"{url}/s/x/lab?a=1"
