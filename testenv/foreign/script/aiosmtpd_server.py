"""aiosmtpd_server.py CERTIFICATES RECORDS: an origin of aiosmtpd on port 25, that takes
mail for example.org and writes down what it got."""
import asyncio
import hashlib
import json
import re
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

certificates, records = sys.argv[1:]


class Handler:
    async def handle_MAIL(self, server, session, envelope, address, options):
        if address.startswith('refused@'):
            return '550 5.7.1 Nothing from there'
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return '250 2.1.0 Sender kept'

    async def handle_RCPT(self, server, session, envelope, address, options):
        if not address.endswith('@example.org'):
            return '550-5.1.1 No such mailbox\r\n550 5.1.1 this is its second line'
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return '250 2.1.5 Recipient kept'

    async def handle_DATA(self, server, session, envelope):
        trace = re.match(rb'(?:Received:.*\n(?:[ \t].*\n)*)*', envelope.original_content)[0]
        content = envelope.original_content[len(trace):]
        if b'Subject: refuse' in content:
            return '554-5.7.1 Not such content\r\n554 5.7.1 here'
        with open(records, 'a', encoding='utf-8') as f:
            print(json.dumps({
                'Client': session.peer[0], 'Helo': session.host_name, 'TLS': session.ssl is not None,
                'User': session.authenticated and session.auth_data.decode(), 'From': envelope.mail_from,
                'Mail': envelope.mail_options, 'SMTPUTF8': envelope.smtp_utf8,
                'To': envelope.rcpt_tos, 'Rcpt': envelope.rcpt_options, 'Hops': len(re.findall(rb'^Received:', trace, re.M)), 'Octets': len(content),
                'SHA256': hashlib.sha256(content).hexdigest(),
                'Content': content.decode(errors='replace') if len(content) < 2000 else ''}), file=f, flush=True)
        return '250 2.0.0 Kept'


def check(server, session, envelope, mechanism, data):
    good = data.login == b'user' and data.password == b'password'
    return AuthResult(success=good, handled=good, auth_data=data.login)


async def main():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates + '.pem', certificates + '.key')
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Handler(), hostname='origin.example.org', data_size_limit=50 << 20, enable_SMTPUTF8=True,
                     tls_context=context, authenticator=check, auth_require_tls=False, loop=loop), '0.0.0.0', 25)
    await server.serve_forever()


asyncio.run(main())
