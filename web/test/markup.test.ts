/** The chat's markup: a few marks, and nothing else that text could turn into. */
import { expect, test } from 'vitest';
import { type Piece, parse } from '../src/page/markup';

const text = (words: string): Piece => ({ kind: 'text', text: words });
const link = (href: string, words = href): Piece => ({ kind: 'link', href, text: words });

test('bold, italics and code', () => {
  expect(parse('a **b _c_** *d* `**e**`')).toEqual([
    text('a '),
    { kind: 'bold', children: [text('b '), { kind: 'italic', children: [text('c')] }] },
    text(' '),
    { kind: 'italic', children: [text('d')] },
    text(' '),
    { kind: 'code', text: '**e**' },
  ]);
  expect(parse('```\nx = *y*\n```')).toEqual([{ kind: 'block', text: 'x = *y*' }]);
});

test('marks that mark nothing stay as they are', () => {
  for (const words of ['2 * 3 * 4', 'snake_case_name', '**', '* a *', '``', 'a ** b', '5*']) {
    expect(parse(words)).toEqual([text(words)]);
  }
});

test('HTML is text', () => {
  const words = '<img src=x onerror=alert(1)> &amp; <b>b</b>';
  expect(parse(words)).toEqual([text(words)]);
});

test('only http and https become links', () => {
  expect(parse('see https://a.example/x_y_z?q=1.')).toEqual([
    text('see '),
    link('https://a.example/x_y_z?q=1'),
    text('.'),
  ]);
  expect(parse('(http://a.example/)')).toEqual([text('('), link('http://a.example/'), text(')')]);
  expect(parse('https://a.example/w(1)')).toEqual([link('https://a.example/w(1)')]);
  for (const words of [
    'javascript:alert(1)',
    'data:text/html,x',
    'ftp://a.example',
    'https://',
    'http://[',
  ]) {
    expect(parse(words).every((piece) => piece.kind === 'text')).toBe(true);
  }
});

test('what was written is shown whole, and hostile text takes no time', () => {
  const flat = (pieces: Piece[]): string =>
    pieces.map((piece) => ('children' in piece ? flat(piece.children) : piece.text)).join('');
  expect(flat(parse('https://a.example/!!! and more'))).toBe('https://a.example/!!! and more');
  const start = performance.now();
  for (const hostile of ['*', '_', '`', '**a', '```', 'http://', '*a ', '_*']) {
    parse(hostile.repeat(4000 / hostile.length));
  }
  expect(performance.now() - start).toBeLessThan(1000);
});
