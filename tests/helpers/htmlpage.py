"""A page of HTML, read as a browser would."""

import base64
import html.parser
import io
import re
import xml.etree.ElementTree

import PIL.Image


class Page(html.parser.HTMLParser):
  """What a browser would see."""

  VOID = {'meta', 'img', 'br', 'hr', 'link', 'input'}

  def __init__(self, source):
    super().__init__()
    self.source, self.tags, self.words, self._open = source, [], [], []
    self.feed(source)
    assert not self._open, f'not closed: {self._open}'

  def handle_starttag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))
    if tag not in self.VOID:
      self._open.append(tag)

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, text):
    if not {'style', 'script'} & set(self._open):
      self.words.append(text)

  @property
  def text(self):
    return ' '.join(' '.join(self.words).split())

  def named(self, tag):
    return [attributes for name, attributes in self.tags if name == tag]

  @property
  def pictures(self):
    """(alt, decoded content) of each image; an SVG is parsed."""
    found = []
    for image in self.named('img'):
      kind, content = re.fullmatch(
        r'data:image/(png|svg\+xml);base64,(.*)', image['src'], re.DOTALL
      ).groups()
      decoded = base64.b64decode(content, validate=True)
      if kind == 'png':
        with PIL.Image.open(io.BytesIO(decoded)) as picture:
          picture.load()
          found.append((image['alt'], picture.copy()))
      else:
        found.append((image['alt'], xml.etree.ElementTree.fromstring(decoded)))
    return found


def svg_words(svg):
  return ' '.join(' '.join(svg.itertext()).split())
