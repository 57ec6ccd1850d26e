"""A throwaway authority: a root, and a pair that it issued."""

import base64
import datetime
import hashlib
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def issue(folder, names):
    """Writes the files `root`, `chain` and `key`; the pair is good for these names and addresses."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "RUNIT tests")])
    root = sign(root_name, root_key, root_name, root_key, [])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    leaf = sign(name, key, root_name, root_key, names)
    pem = serialization.Encoding.PEM
    (folder / "root").write_bytes(root.public_bytes(pem))
    (folder / "chain").write_bytes(leaf.public_bytes(pem))
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_bytes(
        key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder


def pin(folder):
    """The SHA-256 of the pair's public key, as browsers take it (RFC 7469, section 2.4)."""
    leaf = x509.load_pem_x509_certificate((folder / "chain").read_bytes())
    key = leaf.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


def general(name):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def sign(subject, key, issuer, issuer_key, names):
    now = datetime.datetime.now(datetime.timezone.utc)
    ca = not names
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    certificate = certificate.add_extension(
        x509.KeyUsage(
            digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **usage
        ),
        critical=True,
    )
    if not ca:
        certificate = certificate.add_extension(
            x509.SubjectAlternativeName([general(name) for name in names]), critical=False
        ).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    return certificate.sign(issuer_key, hashes.SHA256())
