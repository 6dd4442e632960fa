// nodemailer.js JOB: send a job, in JSON, with nodemailer and print what it reports.
'use strict';
const fs = require('fs');
const nodemailer = require('nodemailer');

const job = JSON.parse(fs.readFileSync(process.argv[2]));

const transport = nodemailer.createTransport({
	host: job.Server, port: job.Port, name: job.Name, secure: false,
	ignoreTLS: !job.TLS, requireTLS: job.TLS, tls: {ca: fs.readFileSync(job.CA)},
	auth: job.Auth ? {user: job.User, pass: job.Password} : undefined, authMethod: job.Auth || undefined,
	pool: job.Letters.length > 1, maxConnections: 1,
});

function refusal(e) {
	return `${e.code} ${e.command} ${e.responseCode} ${JSON.stringify(e.response)} ${e.message.split('\n')[0]}`;
}

async function main() {
	for (const l of job.Letters) {
		const mail = {
			envelope: {from: l.From, to: l.To, use8BitMime: l.EightBit, size: Buffer.byteLength(l.Content)},
			raw: l.Content,
		};
		if (l.DSN) {
			mail.dsn = {id: 'QQ+314', return: 'headers', notify: ['failure', 'delay'], recipient: 'o+x=y@example.org'};
		}
		try {
			const info = await transport.sendMail(mail);
			console.log(`letter: accepted ${info.accepted}, rejected ${info.rejected}, reply ${JSON.stringify(info.response)}`);
			for (const e of info.rejectedErrors || []) console.log('recipient:', refusal(e));
		} catch (e) {
			console.log('letter:', refusal(e));
			for (const one of e.rejectedErrors || []) console.log('recipient:', refusal(one));
		}
	}
	transport.close();
}

main();
