// What Grafana's panels know of fields: their standard properties, those of each kind of panel, and transformations.
import {
  FieldConfigOptionsRegistry,
  standardEditorsRegistry,
  standardFieldConfigEditorRegistry,
  standardTransformers,
  standardTransformersRegistry,
} from '@grafana/data';

const STANDARD = [
  'color', 'decimals', 'description', 'displayName', 'filterable', 'links', 'mappings', 'max', 'min', 'noValue',
  'thresholds', 'unit',
];

/** A property whose value is taken as it is. */
const property = (path, more = {}) => ({
  id: path,
  path,
  name: path,
  editor: () => null,
  getItemsCount: () => 0,
  override: (value) => value,
  process: (value) => value,
  shouldApply: () => true,
  ...more,
});

export function fillRegistries() {
  standardEditorsRegistry.setInit(() => []);
  standardFieldConfigEditorRegistry.setInit(() => STANDARD.map((path) => property(path)));
  const transformers = new Map(Object.values(standardTransformers).map((each) => [each.id, each]));
  standardTransformersRegistry.setInit(() =>
    [...transformers.values()].map((each) => ({
      id: each.id,
      name: each.name,
      editor: () => null,
      transformation: () => Promise.resolve(each),
    }))
  );
}

/** The properties that fields of a panel can have. Those of its kind are taken from its JSON: no package lists them. */
export function propertiesOf(panel) {
  const registry = new FieldConfigOptionsRegistry();
  standardFieldConfigEditorRegistry.list().forEach((each) => registry.register(each));
  const { defaults, overrides } = panel.fieldConfig;
  const changed = overrides.flatMap((override) => override.properties.map(({ id }) => id));
  const own = new Set([
    ...Object.keys(defaults.custom ?? {}),
    ...changed.filter((id) => id.startsWith('custom.')).map((id) => id.slice('custom.'.length)),
  ]);
  own.forEach((path) => registry.register(property(path, { id: `custom.${path}`, isCustom: true })));
  return registry;
}
