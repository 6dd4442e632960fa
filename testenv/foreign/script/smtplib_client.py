"""smtplib_client.py JOB: send a job, in JSON, with Python's smtplib and print what it
reports."""
import json
import smtplib
import ssl
import sys

with open(sys.argv[1], encoding='utf-8') as f:
    job = json.load(f)


def send(server):
    server.ehlo()
    if job['TLS']:
        print('starttls:', server.starttls(context=ssl.create_default_context(cafile=job['CA'])))
        server.ehlo()
    print('extensions:', sorted(server.esmtp_features.items()))
    if job['Auth']:
        server.user, server.password = job['User'], job['Password']
        print('auth:', server.auth(job['Auth'], server.auth_login if job['Auth'] == 'LOGIN' else server.auth_plain))
    for letter in job['Letters']:
        try:
            print('letter: refused', server.sendmail(letter['From'], letter['To'], letter['Content'].encode(), *options(letter)))
        except smtplib.SMTPRecipientsRefused as e:
            print('letter: recipients', e.recipients)
        except smtplib.SMTPResponseException as e:
            print('letter:', type(e).__name__, e.smtp_code, e.smtp_error, getattr(e, 'sender', ''))
    print('quit:', server.quit())


def options(letter):
    mail, rcpt = [], []
    if letter['EightBit']:
        mail.append('BODY=8BITMIME')
    if letter['UTF8']:
        mail.append('SMTPUTF8')
    if letter['NoAuth']:
        mail.append('AUTH=<>')
    if letter['DSN']:
        mail += ['RET=HDRS', 'ENVID=QQ+2B314']
        rcpt += ['NOTIFY=FAILURE,DELAY', 'ORCPT=rfc822;o+2Bx+3Dy@example.org']
    return mail, rcpt


try:
    send(smtplib.SMTP(job['Server'], job['Port'], local_hostname=job['Name'], timeout=60))
except (smtplib.SMTPException, OSError) as e:
    print('error:', type(e).__name__, e)
