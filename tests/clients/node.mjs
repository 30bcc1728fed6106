// The harness of the clients that run in Node: `main(call)` gives `call(url, token)` 60 seconds, and prints its result.
export async function main(call) {
  const [url, token] = process.argv.slice(2);
  const late = setTimeout(() => {
    console.error("no call within 60 s");
    process.exit(1);
  }, 60_000);
  console.log(JSON.stringify(await call(url, token)));
  clearTimeout(late);
  process.exit(0); // some packages leave threads behind
}

// 20 ms of Opus silence, and a clock that has it sent.
const SILENCE = Buffer.from("f8fffe", "hex");

export function speak(sendRtp) {
  let sequence = 7, timestamp = 960;
  return setInterval(() => {
    const header = Buffer.alloc(12);
    header.writeUInt8(0x80, 0);
    header.writeUInt8(111, 1);
    header.writeUInt16BE((sequence += 1) & 0xffff, 2);
    header.writeUInt32BE((timestamp += 960) >>> 0, 4);
    header.writeUInt32BE(4242, 8);
    sendRtp(Buffer.concat([header, SILENCE]));
  }, 20);
}
