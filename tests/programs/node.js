// Two workers that allocate by themselves, buffers outside of the JavaScript heap, and zlib and OpenSSL on the threads
// of the pool.
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const crypto = require('crypto');
const zlib = require('zlib');

function work(number) {
    const table = {};
    for (let i = 0; i < 20000; i++) {
        table['key' + (i % 700)] = [i * number, 'value' + i];
    }
    const text = JSON.stringify(table);
    const back = zlib.inflateSync(zlib.deflateSync(text)).toString();
    const buffers = [];
    for (let i = 0; i < 100; i++) {
        buffers.push(Buffer.alloc(1000 * i + 1, i));
        if (i % 3 === 0) {
            buffers.shift();
        }
    }
    const bytes = buffers.reduce((sum, buffer) => sum + buffer.length, 0);
    return [number, crypto.createHash('sha256').update(back).digest('hex'), bytes];
}

function finish(answers) {
    console.log(JSON.stringify(answers.sort((a, b) => a[0] - b[0])));
    crypto.pbkdf2('password', 'salt', 1000, 32, 'sha512', (error, key) => {
        console.log(key.toString('hex'));
        zlib.gzip(Buffer.alloc(1000000, 'abc'), (error, packed) => {
            zlib.gunzip(packed, (error, back) => console.log(back.length, 'bytes\nfinished'));
        });
    });
}

if (isMainThread) {
    const answers = [];
    for (let number = 1; number <= 2; number++) {
        new Worker(__filename, { workerData: number }).on('message', (answer) => {
            answers.push(answer);
            if (answers.length === 2) {
                finish(answers);
            }
        });
    }
} else {
    parentPort.postMessage(work(workerData));
}
