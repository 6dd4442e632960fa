"""dma_client.py SERVER FROM RECIPIENT...: send what comes on standard input with dma,
and print what it logs. It runs in a root of its own, see scripts/in-root: /dev has
nothing but what dma needs, and a log that is ours."""
import os
import re
import socket
import subprocess
import sys

server, sender, *recipients = sys.argv[1:]

os.mkdir('/tmp/dev')
subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', '/tmp/dev'], check=True)
for device in 'null', 'zero', 'random', 'urandom':
    with open('/tmp/dev/' + device, 'w', encoding='ascii'):
        pass
    subprocess.run(['mount', '--bind', '/dev/' + device, '/tmp/dev/' + device], check=True)
subprocess.run(['mount', '--bind', '/tmp/dev', '/dev'], check=True)
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind('/dev/log')
os.chmod('/dev/log', 0o666)

with open('/etc/dma/dma.conf', 'w', encoding='ascii') as f:
    f.write(f'SMARTHOST {server}\nPORT 25\nMAILNAME client.example.net\n')
os.makedirs('/var/spool/dma', exist_ok=True)
subprocess.run(['chown', 'root:mail', '/var/spool/dma'], check=True)
os.chmod('/var/spool/dma', 0o2775)
dma = subprocess.Popen(['dma', '-D', '-i', '-f', sender, '--', *recipients])

log.settimeout(1)  # of silence, behind the end
while True:
    ended = dma.poll() is not None
    try:
        while True:
            text = log.recv(65536).decode(errors='replace')
            print(re.sub(r'^<\d+>\w+ +\d+ [\d:]+ ([\w/]+\[[0-9a-f.]+\]|dma\[[^]]*\])?: ?', '', text).rstrip('\0\n'))
    except TimeoutError:
        if ended:
            break
