// smtp-server.js CERTIFICATES RECORDS: an origin of smtp-server on port 25, that takes
// mail for example.org and writes down what it got.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const {SMTPServer} = require('smtp-server');

const [certificates, records] = process.argv.slice(2);

function refusal(code, text) {
	return Object.assign(new Error(text), {responseCode: code});
}

new SMTPServer({
	name: 'origin.example.org', size: 50 << 20, disableReverseLookup: true,
	cert: fs.readFileSync(certificates + '.pem'), key: fs.readFileSync(certificates + '.key'),
	authMethods: ['PLAIN', 'LOGIN'], authOptional: true, allowInsecureAuth: true, hideDSN: false, hideENHANCEDSTATUSCODES: false,
	onAuth(auth, session, done) {
		if (auth.username !== 'user' || auth.password !== 'password') return done(refusal(535, 'Not that password'));
		done(null, {user: auth.username});
	},
	onMailFrom(address, session, done) {
		done(address.address.startsWith('refused@') ? refusal(550, 'Nothing from there') : null);
	},
	onRcptTo(address, session, done) {
		done(address.address.endsWith('@example.org') ? null : refusal(550, 'No such mailbox'));
	},
	onData(stream, session, done) {
		const parts = [];
		stream.on('data', part => parts.push(part));
		stream.on('end', () => {
			const text = Buffer.concat(parts).toString('latin1');
			const [trace] = text.match(/^(?:Received:.*\r?\n(?:[ \t].*\r?\n)*)*/);
			const content = Buffer.from(text.slice(trace.length), 'latin1');
			if (content.includes('Subject: refuse')) return done(refusal(554, 'Not such content'));
			fs.appendFileSync(records, JSON.stringify({
				Client: session.remoteAddress, Helo: session.hostNameAppearsAs, TLS: session.secure, User: session.user,
				Envelope: session.envelope,
				Hops: (trace.match(/^Received:/mg) || []).length, Octets: content.length,
				SHA256: crypto.createHash('sha256').update(content).digest('hex'),
				Content: content.length < 2000 ? content.toString() : '',
			}) + '\n');
			done(null, 'Kept');
		});
	},
}).on('error', e => console.error(e)).listen(25, '0.0.0.0');
