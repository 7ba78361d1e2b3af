// Makes train.jsonl: short conversations of small sums and words, the same every time. Run: node configs/demo/make-data.mjs
import { writeFileSync } from 'node:fs';

let state = 20260101;
const random = (n) => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * n);
};
const words = ['apple', 'river', 'stone', 'cloud', 'garden', 'window', 'silver', 'market', 'forest', 'candle', 'bridge', 'winter'];
const colours = ['red', 'green', 'blue', 'yellow', 'white', 'black'];

const makers = [
  () => {
    const a = random(20), b = random(20);
    return [`What is ${a} plus ${b}?`, `${a} plus ${b} is ${a + b}.`];
  },
  () => {
    const a = random(20), b = random(a + 1);
    return [`What is ${a} minus ${b}?`, `${a} minus ${b} is ${a - b}.`];
  },
  () => {
    const word = words[random(words.length)];
    return [`How many letters has the word ${word}?`, `The word ${word} has ${word.length} letters.`];
  },
  () => {
    const word = words[random(words.length)], colour = colours[random(colours.length)];
    return [`The ${word} is ${colour}. Which colour has the ${word}?`, `The ${word} is ${colour}.`];
  },
];

const lines = [];
for (let i = 0; i < 2000; i++) {
  const [user, assistant] = makers[random(makers.length)]();
  lines.push(JSON.stringify({ messages: [{ role: 'user', content: user }, { role: 'assistant', content: assistant }] }));
}
writeFileSync(new URL('train.jsonl', import.meta.url), lines.join('\n') + '\n');
