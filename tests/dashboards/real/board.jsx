// A board, drawn from its JSON by Grafana's own components. The page's address says which, of what server, and when.
import { createRoot } from 'react-dom/client';

import { ThemeContext, createTheme } from '@grafana/data';
import { GlobalStyles } from '@grafana/ui';
import 'uplot/dist/uPlot.min.css';

import { framesOf, windowFrom } from './frames.js';
import { Panel } from './panels.jsx';
import { fillRegistries } from './registries.js';

const WIDTH = 1600;
// Pixels of a column and a line of Grafana's grid, and between panels.
const [COLUMN, LINE, GAP] = [WIDTH / 24, 38, 8];
const HEADER = 92;

const parameters = new URLSearchParams(location.search);
const shown = windowFrom(parameters);
const theme = createTheme({ colors: { mode: 'dark' } });
const failures = [];
const failed = (text) => failures.push(text);
window.addEventListener('error', ({ message }) => failed(message));

const clock = (at) => new Date(at * 1000).toISOString().slice(11, 19);

function Header({ board }) {
  const choices = board.templating.list.filter(({ type }) => type === 'query');
  const chip = { background: theme.colors.background.primary, border: `1px solid ${theme.colors.border.weak}`, borderRadius: 3, padding: '4px 10px' };
  return (
    <header style={{ height: HEADER, padding: '12px 16px', position: 'relative' }}>
      <div style={{ fontSize: 20 }}>{board.title}</div>
      <div style={{ display: 'flex', gap: 12, marginTop: 10 }}>
        {choices.map(({ label, name }) => (
          <span key={name} style={chip}>
            <span style={{ color: theme.colors.text.link, marginRight: 10 }}>{label}</span>
            {parameters.get(name) ?? 'All'}
          </span>
        ))}
      </div>
      <div style={{ position: 'absolute', right: 16, top: 16, opacity: 0.65, textAlign: 'right' }}>
        {clock(shown.from)} to {clock(shown.to)} UTC
        <br />
        drawn with Grafana’s components from npm
      </div>
    </header>
  );
}

const Heading = ({ panel }) => (
  <div style={{ fontSize: 16, padding: '6px 10px' }}>{`${panel.collapsed ? '▸' : '▾'} ${panel.title}`}</div>
);

function Placed({ panel, frames }) {
  const { x, y, w, h } = panel.gridPos;
  const [width, height] = [w * COLUMN - GAP, h * LINE - GAP];
  const place = { position: 'absolute', left: x * COLUMN + GAP / 2, top: HEADER + y * LINE, width, height };
  const plotted = `${panel.id}.png`;
  return (
    <div style={place}>
      {panel.type === 'row' ? <Heading panel={panel} /> : <Panel {...{ panel, frames, plotted, theme, width, height, failed }} window={shown} />}
    </div>
  );
}

function Board({ board, frames }) {
  const lines = Math.max(...board.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <main style={{ position: 'relative', width: WIDTH, height: HEADER + lines * LINE + GAP }}>
        <Header board={board} />
        {board.panels.map((panel, index) => (
          <Placed key={panel.id} panel={panel} frames={frames[index]} />
        ))}
      </main>
    </ThemeContext.Provider>
  );
}

const drawnByGrafana = (panel) => !['heatmap', 'row'].includes(panel.type) && panel.datasource.type === 'prometheus';

async function show() {
  fillRegistries();
  const board = await (await fetch('board.json')).json();
  const frames = await Promise.all(
    board.panels.map((panel) =>
      drawnByGrafana(panel)
        ? framesOf(panel, shown, theme).catch((error) => (failed(`${panel.title}: ${error}`), []))
        : []
    )
  );
  createRoot(document.getElementById('root')).render(<Board board={board} frames={frames} />);
  // Curves are drawn after their panels.
  setTimeout(() => Object.assign(window, { drawn: { failures, panels: board.panels.length } }), 3000);
}

show().catch((error) => Object.assign(window, { drawn: { failures: [String(error)], panels: 0 } }));
