/* Friendly names for those who want none of their own: 64 words, 64 animals and plants, and a number. */

const FIRST = `able agile amber azure bold brave bright brisk calm clever cosmic cosy crisp curious daring dapper eager early
easy fair fancy fleet fond free fresh gentle glad golden green happy hearty honest humble jolly keen kind lively lucky
lunar mellow merry misty modest nimble noble patient plucky polite proud quick quiet rapid ready rustic silver smart snowy
sunny swift tidy vivid warm witty zesty`.split(/\s+/);
const SECOND = `acorn alder ant aspen badger bear beaver bee beetle birch bison camel cat cedar clover crane crow deer dove
duck eagle elk elm falcon fern finch fox frog gecko goat goose gull hare hawk heron ibex iris jay koala lark lemur lily
lion lynx maple mole moss moth newt oak otter owl panda pine plum poppy puffin raven robin seal stork swan tulip whale
wolf wren`.split(/\s+/);

function pick(words) {
  return words[Math.floor(Math.random() * words.length)];
}

/** A name like `curious-otter-41`, which no server reserves. */
export function suggestName() {
  return `${pick(FIRST)}-${pick(SECOND)}-${10 + Math.floor(Math.random() * 90)}`;
}
