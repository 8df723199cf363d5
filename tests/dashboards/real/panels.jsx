// One panel, drawn by Grafana's component of its kind.
import { Component } from 'react';

import { getDisplayValueAlignmentFactors, getFieldDisplayValues, LoadingState } from '@grafana/data';
import { BarGauge, BigValue, PanelChrome, TimeSeries } from '@grafana/ui';
import * as unstable from '@grafana/ui/unstable';

import { timeRange } from './frames.js';

const Table = unstable.Table ?? unstable.TableNG;

const note = (text) => <div style={{ padding: 8, textAlign: 'center', opacity: 0.65 }}>{text}</div>;

function reduced({ panel, frames, theme }) {
  const { reduceOptions } = panel.options;
  return getFieldDisplayValues({
    data: frames, fieldConfig: panel.fieldConfig, reduceOptions, replaceVariables: (text) => text, theme, timeZone: 'utc',
  });
}

function Stat(props) {
  const { colorMode, graphMode, justifyMode, text, textMode } = props.panel.options;
  const [{ display }] = reduced(props);
  return <BigValue {...{ colorMode, graphMode, justifyMode, text, textMode, value: display }} {...sized(props)} />;
}

function Bars(props) {
  const values = reduced(props);
  const { displayMode, namePlacement = 'auto', orientation, text, valueMode } = props.panel.options;
  const alignmentFactors = getDisplayValueAlignmentFactors(values);
  const height = props.height / values.length - 8;
  return values.map(({ display, field }, index) => (
    <div key={index} style={{ marginBottom: 8 }}>
      <BarGauge
        {...{ alignmentFactors, displayMode, field, namePlacement, orientation, valueDisplayMode: valueMode, value: display }}
        {...sized({ ...props, height })}
        text={text}
      />
    </div>
  ));
}

const sized = ({ width, height, theme }) => ({ width, height, theme });

function Curves({ panel, frames, window, width, height }) {
  const { legend } = panel.options;
  return (
    <TimeSeries {...{ frames, height, legend, width }} structureRev={1} timeRange={timeRange(window)} timeZone="utc">
      {() => null}
    </TimeSeries>
  );
}

const Rows = ({ panel, frames, width, height }) => (
  <Table data={frames[0]} {...{ width, height }} initialSortBy={panel.options.sortBy} />
);

const KINDS = { bargauge: Bars, stat: Stat, table: Rows, timeseries: Curves };

function Content(props) {
  const { panel, frames, plotted } = props;
  if (panel.datasource.type !== 'prometheus') {
    return note(`asks ${panel.datasource.type}, which is not here`);
  }
  if (panel.type === 'heatmap') {
    return (
      <figure style={{ margin: 0 }}>
        <img src={plotted} style={{ display: 'block', width: props.width, height: props.height - 20 }} />
        <figcaption style={{ fontSize: 11, opacity: 0.65, textAlign: 'center' }}>
          plotted by dashboards/render: Grafana publishes no component for heatmaps
        </figcaption>
      </figure>
    );
  }
  const Kind = KINDS[panel.type];
  return frames.length ? <Kind {...props} /> : note(panel.fieldConfig.defaults.noValue ?? 'No data');
}

class Guard extends Component {
  state = {};

  static getDerivedStateFromError(error) {
    return { error };
  }

  componentDidCatch(error) {
    this.props.failed(`${this.props.title}: ${error}`);
  }

  render() {
    return this.state.error ? note(String(this.state.error)) : this.props.children;
  }
}

/** A panel with its frame; `failed` is told if it cannot be drawn. */
export function Panel({ width, height, failed, ...props }) {
  const { title } = props.panel;
  return (
    <PanelChrome {...{ title, width, height }} loadingState={LoadingState.Done}>
      {(innerWidth, innerHeight) => (
        <Guard {...{ failed, title }}>
          <Content {...props} width={innerWidth} height={innerHeight} />
        </Guard>
      )}
    </PanelChrome>
  );
}
